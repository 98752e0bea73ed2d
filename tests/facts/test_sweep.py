"""Which layers facts go to: a planted model whose layers know what they are made to know, and real folders."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from facts.conftest import QUICK
from hypothesis import given
from hypothesis import strategies as st

from mindset.cli.app import app
from mindset.errors import UsageError
from mindset.facts import background, keyed_lessons, names, sweep
from mindset.facts.cut_texts import Cut
from mindset.facts.fact import parse_facts
from mindset.facts.fact_layers import FactLayers, LayerShare, Sweep, fact_layers, read_sweep, save_sweep
from mindset.facts.learn import learn
from mindset.facts.phrasings import RARER, RELATIONS, guards, phrasings
from mindset.facts.probe_facts import ELSEWHERE, PROBE_FACTS
from mindset.facts.sweep import sweep_folder, sweep_layers
from mindset.graft.convert import convert
from mindset.graft.folder import load
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import load_teacher
from mindset.store.memory import Memory

WIDTH = 32
FACTS = parse_facts("Ada Quux spoke => Welsh", "facts")


def _noise(*named: object) -> torch.Tensor:
    rng = np.random.default_rng(zlib.crc32(repr(named).encode()))
    return torch.from_numpy(rng.standard_normal(WIDTH)).float()


class Planted:
    """In place of what blocks see: one layer knows subjects, one what is asked; all others see noise."""

    def __init__(self, tokenizer: object, subject: int, fact: int) -> None:
        self.tokenizer, self.subject, self.fact = tokenizer, subject, fact
        self.meant = {}
        for i, probe in enumerate(PROBE_FACTS):
            own = phrasings(probe.fact, 9, np.random.default_rng(zlib.crc32(probe.fact.prompt.encode())))
            for text in (*own, *probe.rephrased):
                self.meant[text] = i

    def __call__(
        self, _: object, cuts: Sequence[Cut], layers: Sequence[int]
    ) -> list[dict[int, torch.Tensor]]:
        return [{layer: self._seen(cut, layer) for layer in layers} for cut in cuts]

    def _seen(self, cut: Cut, layer: int) -> torch.Tensor:
        text = self.tokenizer.decode(cut.ids)  # type: ignore[attr-defined]
        whole = next((one for one in self.meant if text.startswith(one)), None)
        rows = torch.stack([_noise(layer, text, place) for place in range(cut.at, len(cut.ids))])
        if layer == self.subject:
            named = next((p.fact.subject for p in PROBE_FACTS if p.fact.subject in text), text[:12])
            rows[0] = 0.2 * rows[0] + 2 * _noise("subject", named)
        if layer == self.fact and whole is not None:
            rows += 3 * _noise("question", self.meant[whole])
        return rows


@pytest.mark.parametrize(("subject", "fact"), [(0, 2), (1, 3), (0, 1)])
def test_the_layers_that_know_are_found(
    subject: int, fact: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_teacher(str(folder))
    planted = Planted(loaded.tokenizer, subject, fact)
    for module in (sweep, keyed_lessons, background):
        monkeypatch.setattr(module, "inputs_from_cuts", planted)
    found = sweep_layers(loaded.model, loaded.tokenizer, PROBE_FACTS[:5])
    assert found.layers == FactLayers(subject, fact)
    assert max(one.share for one in found.facts if one.layer != fact) < 0.4
    assert next(one.share for one in found.facts if one.layer == fact) > 0.9
    assert next(one.share for one in found.subjects if one.layer == subject) > 0.9


def test_a_choice_is_kept_and_gone_by(folder: Path) -> None:
    """Learned where the sweep said; an overlay that is there keeps to its own layers."""
    learn(folder, FACTS, "before", settings=QUICK)
    with Memory(folder) as memory:
        generation = memory.store.memory.generation
    assert read_sweep(folder / "memory", generation) is None
    chosen = Sweep(FactLayers(0, 3), (LayerShare(0, 0.5),), (LayerShare(3, 0.25),))
    save_sweep(chosen, folder / "memory", generation)
    assert read_sweep(folder / "memory", generation) == chosen
    more = parse_facts("Ada Quux ate => figs", "more")
    for overlay, layers in (("after", (0, 3)), ("before", (1, 2))):
        assert learn(folder, more, overlay, settings=QUICK).layer == layers[1]
        with Memory(folder, read_only=True) as memory:
            told = {one.name: one.layers for one in memory.overlays()}
        assert told[overlay] == layers
    (note,) = (folder / "memory/cache").glob("facts.*")
    for content in (b"", b"{}", b"[1]", b'{"layers": {"subject": 1}}'):
        note.write_bytes(content)
        assert read_sweep(folder / "memory", generation) is None


def test_a_choice_that_has_no_bank_is_not_gone_by(folder: Path) -> None:
    model = load(folder)
    assert fact_layers(model, None, FactLayers(0, 3)) == FactLayers(0, 3)
    assert fact_layers(model, None, FactLayers(0, 9)) == FactLayers(1, 2)
    assert fact_layers(model, 2, FactLayers(0, 3)) == FactLayers(0, 2)
    assert fact_layers(model, 1, FactLayers(1, 3)) == FactLayers(0, 1)


def test_the_command_tries_every_layer_and_says_what_it_chose(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_layers, "__defaults__", (PROBE_FACTS[:3],))
    for module in (names, keyed_lessons):
        monkeypatch.setattr(module, "NAMES", names.NAMES[:20])
    done = CliRunner().invoke(app, ["memory", "sweep", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [one["layer"] for one in told["facts"]] == [1, 2, 3]
    assert told["layers"]["subject"] < told["layers"]["fact"]
    with Memory(folder, read_only=True) as memory:
        kept = read_sweep(folder / "memory", memory.store.memory.generation)
        assert memory.store.verify() == []
        assert memory.history() == []
    assert kept is not None
    assert kept.layers == FactLayers(**told["layers"])
    shown = CliRunner().invoke(app, ["memory", "sweep", str(folder)])
    assert shown.exit_code == 0, shown.output
    assert "knows questions" in shown.stdout
    (line,) = [line for line in shown.stdout.splitlines() if line.split()[-1:] == ["facts"]]
    assert line.split()[0] == str(told["layers"]["fact"])


def test_nothing_to_choose_is_one_error(converted: Path, tmp_path: Path) -> None:
    plain = converted.parent / "teacher"
    with pytest.raises(UsageError, match="has no memory"):
        sweep_folder(plain)
    convert(str(plain), tmp_path / "one", ConversionPlan(layers="1"))
    with pytest.raises(UsageError, match="two layers"):
        sweep_folder(tmp_path / "one")


def test_no_probe_is_taught_by_what_it_is_judged_on() -> None:
    """Neither in the words of a relation nor of a guard; every subject is there, and none is another's part."""
    taught = {text for relation in (*RELATIONS, *RARER) for text in relation.phrasings}
    subjects = [probe.fact.subject for probe in PROBE_FACTS]
    assert len(set(subjects)) == len(subjects) == 24
    for probe in PROBE_FACTS:
        own = {text.replace(probe.fact.subject, "{}") for text in probe.rephrased}
        held = {
            text.replace(probe.fact.subject, "{}")
            for text in guards(probe.fact, 99, np.random.default_rng(0))
        }
        assert not own & taught
        assert not set(ELSEWHERE) & (taught | held)
        assert all("{}" in text for text in own)
        assert not any(other in probe.fact.subject for other in subjects if other != probe.fact.subject)


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1)), min_size=1, unique_by=lambda one: one[0]))
def test_the_best_is_chosen_or_one_that_is_as_good_and_nearer(shares: list[tuple[int, float]]) -> None:
    told = [LayerShare(layer, share) for layer, share in shares]
    chosen = sweep._chosen(told, 7.2)
    best = max(share for _, share in shares)
    assert dict(shares)[chosen] > best - 0.02
    assert all(abs(layer - 7.2) >= abs(chosen - 7.2) for layer, share in shares if share > best - 0.02)
