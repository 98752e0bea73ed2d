"""What a server counts, as text that Prometheus reads: requests, places, tokens, seconds.

Written by hand: the format is a line a number. Counts are of one event loop, which alone adds to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from mindset.calls.call import Usage

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Histogram:
    """Seconds, counted by size."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[sum(seconds > bound for bound in _BOUNDS)] += 1
        self.total += seconds

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """As Prometheus has them: each bound counts all below it."""
        below = 0
        for bound, count in zip((*(f"{bound:g}" for bound in _BOUNDS), "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {below}'
        yield f"{name}_sum{{{labels}}} {self.total:.6f}"
        yield f"{name}_count{{{labels}}} {below}"


class Metrics:
    """The counts of one server."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        """By way (a path, or a method of gRPC) and status."""
        self.tokens: Counter[str] = Counter()
        self.cancelled = 0
        """Answers that whoever asked did not wait for."""
        self._seconds: dict[str, Histogram] = {}
        self._first: dict[str, Histogram] = {}

    def answered(self, way: str, status: str, seconds: float) -> None:
        """A request is over, however it ended."""
        self.requests[way, status] += 1
        self._seconds.setdefault(way, Histogram()).add(seconds)

    def first_piece(self, way: str, seconds: float) -> None:
        """The first piece of an answer went out."""
        self._first.setdefault(way, Histogram()).add(seconds)

    def used(self, usage: Usage) -> None:
        """What an answer read and wrote."""
        self.tokens["prompt"] += usage.prompt_tokens
        self.tokens["completion"] += usage.completion_tokens

    def text(self, model: str, *, taken: int, draining: bool) -> str:
        """All of it, and how things are just now."""
        return "\n".join(self._lines(model, taken, draining)) + "\n"

    def _lines(self, model: str, taken: int, draining: bool) -> Iterator[str]:
        yield from _family("mindset_model", "gauge", "The model that is served.", [({"model": model}, 1)])
        yield from _family("mindset_places_taken", "gauge", "Requests under way.", [({}, taken)])
        yield from _family(
            "mindset_draining", "gauge", "Whether the server is stopping.", [({}, int(draining))]
        )
        yield from _family(
            "mindset_requests_total", "counter", "Requests that are over.",
            [({"way": way, "status": status}, n) for (way, status), n in sorted(self.requests.items())],
        )  # fmt: skip
        yield from _family(
            "mindset_tokens_total", "counter", "Tokens read and written.",
            [({"kind": kind}, n) for kind, n in sorted(self.tokens.items())],
        )  # fmt: skip
        yield from _family(
            "mindset_cancelled_total", "counter", "Answers nobody waited for.", [({}, self.cancelled)]
        )
        for name, told, by_way in (
            ("mindset_request_seconds", "From a request to the end of its answer.", self._seconds),
            ("mindset_first_piece_seconds", "From a request to the first piece of its answer.", self._first),
        ):
            yield from (f"# HELP {name} {told}", f"# TYPE {name} histogram")
            for way, histogram in sorted(by_way.items()):
                yield from histogram.lines(name, f'way="{_escaped(way)}"')


def _family(
    name: str, kind: str, told: str, rows: Iterable[tuple[Mapping[str, str], float]]
) -> Iterator[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"
    for labels, value in rows:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
