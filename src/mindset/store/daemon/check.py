"""Whether a daemon answers at a URL, and whether it and this release understand each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mindset.errors import FormatError, MindsetError, UsageError
from mindset.store.daemon import memory_pb2 as pb
from mindset.store.daemon.calls import Calls
from mindset.store.daemon.protocol import PROTOCOL, release
from mindset.store.schema import SCHEMA

__all__ = ["Check", "check", "require"]


@dataclass(frozen=True)
class Check:
    """What was found at a URL."""

    url: str
    answers: bool
    """Whether a daemon answers there."""
    version: str = ""
    """Its release of mindset; another one is no problem as long as the next two fit."""
    protocol: int = 0
    """Of `memory.proto`."""
    schema: int = 0
    """Of the tables of slots."""
    folder: str = ""
    """The model folder that it serves."""
    slots: int = 0
    """That live in it, where it fits."""
    problems: tuple[str, ...] = ()
    """What does not fit, in sentences."""

    @property
    def fits(self) -> bool:
        """Whether it can be used."""
        return self.answers and not self.problems


def check(url: str, *, timeout_seconds: float = 5.0) -> Check:
    """Ask the daemon at `url` what it is."""
    calls = Calls(url, timeout_seconds)
    try:
        found = _asked(calls)
        return replace(found, slots=calls.ask("Count", pb.Where()).count) if found.fits else found
    except UsageError:
        raise
    except MindsetError as error:
        return Check(calls.url, answers=False, problems=(str(error),))
    finally:
        calls.close()


def require(calls: Calls) -> None:
    """Refuse a daemon that does not fit."""
    found = _asked(calls)
    if not found.fits:
        raise FormatError(
            f"{found.url}: mindset {found.version} serves there, and {'; '.join(found.problems)}; use one release"
        )


def _asked(calls: Calls) -> Check:
    told = calls.ask("About", pb.Nothing())
    problems = tuple(
        f"it has {what} {theirs}, this release ({release()}) {ours}"
        for what, theirs, ours in (
            ("protocol", told.protocol, PROTOCOL),
            ("schema", told.schema, SCHEMA.version),
        )
        if theirs != ours
    )
    return Check(calls.url, True, told.version, told.protocol, told.schema, told.folder, problems=problems)
