"""The pictures of a report: gap against k, and fvu per layer, as PNG files.

Drawn on figures of their own, without pyplot, so that nothing is left open and no window ever appears. Does not know
how the figures were measured. Invariant: the same figures give the same picture; a file is there whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindset.atomic_file import replacing
from mindset.errors import UsageError
from mindset.probe.bootstrap import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["fvu_per_layer", "gap_by_k", "save"]

COLOURS = ("#8a8f98", "#1f6fb2", "#c2571a", "#3f8f4f")
"""Grey first: what was there before training."""
MARKERS = ("o", "s", "^", "D")
INK = "#33373d"


def gap_by_k(
    values: Mapping[str, Mapping[int, Interval]],
    *,
    n_slots: int,
    teacher_bits: float | None = None,
    title: str = "What reading fewer slots costs",
) -> Figure:
    """Gap in bits per byte against the slots read, one line for each label of `values`, with 95 % intervals."""
    if not any(values.values()):
        raise UsageError("there is no gap to draw; measure at least one k")
    figure, axes = _blank(title)
    for index, (label, points) in enumerate(values.items()):
        _intervals(axes, points, label, index)
    _name_estimates(axes, values)
    level = "teacher" if teacher_bits is None else f"teacher, {teacher_bits:.3f} bits per byte"
    axes.axhline(0, color=INK, linestyle="--", linewidth=1, label=level)
    ks = sorted({k for points in values.values() for k in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [f"{k:,}\n(all)" if k == n_slots else f"{k:,}" for k in ks])
    axes.minorticks_off()
    axes.margins(y=0.12)
    axes.set_xlim(ks[0] / 1.25, ks[-1] * 1.25)
    axes.set_xlabel(f"slots read for a token (k), of {n_slots:,} in a layer")
    axes.set_ylabel("gap to the teacher, bits per byte")
    axes.legend(frameon=False)
    return figure


def fvu_per_layer(
    layers: Sequence[int],
    before: Sequence[float] | None,
    after: Sequence[float],
    *,
    title: str = "What each layer's memory misses of the block it replaced",
) -> Figure:
    """Fraction of variance unexplained in each layer, after training and, where known, before it."""
    for name, series in (("before", before), ("after", after)):
        if series is not None and len(series) != len(layers):
            raise UsageError(f"{len(layers)} layers, but {len(series)} figures {name} training")
    if not layers:
        raise UsageError("there is no layer to draw")
    figure, axes = _blank(title)
    lines = {"untrained": before, "trained": after}
    for index, (label, series) in enumerate(lines.items()):
        if series is not None:
            axes.plot(
                layers, series, label=label, color=COLOURS[index], marker=MARKERS[index], markersize=4.5
            )
    every = math.ceil(len(layers) / 16)
    axes.set_xticks(layers[::every], [str(layer) for layer in layers[::every]])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer")
    axes.set_ylabel("fraction of variance unexplained\n(0: all of it explained, 1: none)")
    axes.legend(frameon=False)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG."""
    with replacing(path) as file:
        # Without the software's name, whose version would change the file.
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return path


def _blank(title: str) -> tuple[Figure, Any]:
    """An empty figure and its axes."""
    # Imported when drawn: matplotlib takes half a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _intervals(axes: Any, points: Mapping[int, Interval], label: str, index: int) -> None:
    """One line with a bar for each interval."""
    ks = sorted(points)
    estimates = [points[k].estimate for k in ks]
    # An interval of few windows may miss its estimate by rounding; a bar cannot have a negative length.
    below = [max(0.0, points[k].estimate - points[k].low) for k in ks]
    above = [max(0.0, points[k].high - points[k].estimate) for k in ks]
    colour = COLOURS[index % len(COLOURS)]
    axes.errorbar(
        ks, estimates, yerr=(below, above), label=label, color=colour, marker=MARKERS[index % len(MARKERS)],
        markersize=5.5, capsize=3, elinewidth=1,
    )  # fmt: skip


def _name_estimates(axes: Any, values: Mapping[str, Mapping[int, Interval]]) -> None:
    """At each k the highest figure above its bar and the lowest below, where two lines leave room for them."""
    for k in {k for points in values.values() for k in points}:
        here = sorted(
            (points[k].estimate, index) for index, points in enumerate(values.values()) if k in points
        )
        for (estimate, index), up in {here[0]: len(here) == 1, here[-1]: True}.items():
            points = list(values.values())[index][k]
            axes.annotate(
                f"{estimate:.3f}", (k, max(points.high, estimate) if up else min(points.low, estimate)),
                xytext=(0, 6 if up else -6), textcoords="offset points", ha="center",
                va="bottom" if up else "top", fontsize=8, color=COLOURS[index % len(COLOURS)],
            )  # fmt: skip
