"""An answer as JSON, the same from every command that asks a model."""

from __future__ import annotations

from dataclasses import asdict

from mindset.calls.canonical import Json
from mindset.cli.spending import Spent
from mindset.llm.dialog import Dialog

__all__ = ["document"]


def document(dialog: Dialog, spent: Spent) -> dict[str, Json]:
    """The last answer of a dialog: what was said, what it cost, and where it is kept."""
    answer, branch = dialog.last, dialog.branch
    if answer is None or branch is None:
        raise LookupError("nothing was answered yet")
    return {
        "text": answer.text,
        "model": spent.model,
        "finish_reason": answer.finish_reason,
        "usage": asdict(spent.usage),
        "seconds": spent.seconds,
        "first_token": spent.first_token,
        "cost": spent.money,
        "call": answer.call_id,
        "node": dialog.tip,
        "conversation": branch.conversation,
        "branch": branch.name,
    }
