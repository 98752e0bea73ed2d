"""The record of every request to a language model, and the one dialog tree; knows no model and no network.

from mindset import calls

with calls.run("tuesday's questions"): ...     # every call in the block belongs to this run
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mindset.calls.runs import run

__all__ = ["run"]


def __getattr__(name: str) -> object:
    """`run`, imported when it is first used: types alone load no database."""
    if name != "run":
        raise AttributeError(f"module 'mindset.calls' has no attribute {name!r}")
    from mindset.calls.runs import run

    return run
