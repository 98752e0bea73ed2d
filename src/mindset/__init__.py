"""mindset: a language model whose feed-forward memory its owner can read, search, edit, cite and undo.

This is the whole public face. Each name is imported from its module when it is first used, so `import
mindset` loads no torch. Does not know what the names do. Invariant: `FACE` and `__all__` say the same.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which alone would cost a third of the start-up time of `mindset --help`
if TYPE_CHECKING:
    from mindset.distill.run import distill
    from mindset.distill.settings import DistillSettings
    from mindset.errors import MindsetError
    from mindset.graft.convert import ConversionReport, convert
    from mindset.graft.export import export_dense
    from mindset.graft.folder import load, save
    from mindset.graft.model import banks, without_memory
    from mindset.graft.plan import ConversionPlan
    from mindset.graft.recording import record
    from mindset.graft.sources import load_teacher
    from mindset.llm.opening import open_client
    from mindset.probe.evaluation import Evaluation, evaluate
    from mindset.probe.generate import generate
    from mindset.probe.why import Why, why

__all__ = [
    "ConversionPlan",
    "ConversionReport",
    "DistillSettings",
    "Evaluation",
    "MindsetError",
    "Why",
    "__version__",
    "banks",
    "convert",
    "distill",
    "evaluate",
    "export_dense",
    "generate",
    "load",
    "load_teacher",
    "open_client",
    "record",
    "save",
    "why",
    "without_memory",
]

__version__ = "0.1.0"

FACE = {
    "ConversionPlan": "mindset.graft.plan",
    "ConversionReport": "mindset.graft.convert",
    "DistillSettings": "mindset.distill.settings",
    "Evaluation": "mindset.probe.evaluation",
    "MindsetError": "mindset.errors",
    "Why": "mindset.probe.why",
    "banks": "mindset.graft.model",
    "convert": "mindset.graft.convert",
    "distill": "mindset.distill.run",
    "evaluate": "mindset.probe.evaluation",
    "export_dense": "mindset.graft.export",
    "generate": "mindset.probe.generate",
    "load": "mindset.graft.folder",
    "load_teacher": "mindset.graft.sources",
    "open_client": "mindset.llm.opening",
    "record": "mindset.graft.recording",
    "save": "mindset.graft.folder",
    "why": "mindset.probe.why",
    "without_memory": "mindset.graft.model",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for, and keep it."""
    if name not in FACE:
        raise AttributeError(f"module 'mindset' has no attribute {name!r}; it offers {', '.join(FACE)}")
    from importlib import import_module

    value = getattr(import_module(FACE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
