from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mindset.distill import plots
from mindset.errors import UsageError
from mindset.probe.bootstrap import Interval


def gap(estimate: float, spread: float = 0.01) -> Interval:
    return Interval(estimate, estimate - spread, estimate + spread, 8)


UNTRAINED = {1536: gap(0.0), 768: gap(0.015), 384: gap(0.12), 192: gap(0.42)}
TRAINED = {1536: gap(0.03), 384: gap(0.06)}


def test_gap_by_k_names_its_axes_its_lines_and_the_teacher() -> None:
    figure = plots.gap_by_k({"untrained": UNTRAINED, "trained": TRAINED}, n_slots=1536, teacher_bits=1.11)
    (axes,) = figure.axes
    assert "bits per byte" in axes.get_ylabel()
    assert "k" in axes.get_xlabel()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["192", "384", "768", "1,536\n(all)"]
    legend = axes.get_legend()
    assert legend is not None
    told = {text.get_text() for text in legend.get_texts()}
    assert told == {"teacher, 1.110 bits per byte", "untrained", "trained"}


def test_gap_by_k_draws_the_figures_and_their_intervals() -> None:
    figure = plots.gap_by_k({"untrained": UNTRAINED}, n_slots=1536)
    (container,) = figure.axes[0].containers
    line, _, (bars,) = container.lines  # type: ignore[attr-defined]
    assert np.allclose(line.get_xydata(), [[192, 0.42], [384, 0.12], [768, 0.015], [1536, 0.0]])
    assert np.allclose(bars.get_segments()[0], [[192, 0.41], [192, 0.43]])
    said = {text.get_text() for text in figure.axes[0].texts}
    assert said == {"0.420", "0.120", "0.015", "0.000"}


def test_one_k_and_an_interval_beside_its_estimate_can_be_drawn() -> None:
    figure = plots.gap_by_k({"trained": {6: Interval(0.1, 0.11, 0.12, 1)}}, n_slots=24)
    figure.savefig(io.BytesIO())


@pytest.mark.parametrize("before", [None, [0.3, 0.2, 0.1]])
def test_fvu_per_layer_has_a_line_for_what_is_known(before: list[float] | None) -> None:
    figure = plots.fvu_per_layer([0, 3, 7], before, [0.1, 0.05, 0.02])
    lines = {str(line.get_label()): line for line in figure.axes[0].get_lines()}
    assert lines.keys() == ({"trained"} if before is None else {"untrained", "trained"})
    assert np.allclose(lines["trained"].get_xydata(), [[0, 0.1], [3, 0.05], [7, 0.02]])
    assert figure.axes[0].get_ylim()[0] == 0


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UsageError, match="no gap"):
        plots.gap_by_k({"untrained": {}}, n_slots=8)
    with pytest.raises(UsageError, match="2 layers, but 1 figures after"):
        plots.fvu_per_layer([0, 1], None, [0.1])
    with pytest.raises(UsageError, match="no layer"):
        plots.fvu_per_layer([], None, [])


def test_the_same_figures_give_the_same_file_and_leave_no_figure_open(tmp_path: Path) -> None:
    files = [
        plots.save(plots.gap_by_k({"untrained": UNTRAINED}, n_slots=1536), tmp_path / name) for name in "ab"
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert imread(io.BytesIO(files[0].read_bytes())).shape[:2] == (630, 1050)
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
