"""Which layers facts go to: a planted model whose layers know what they are made to know, and real folders."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

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
from mindset.facts.fact_layers import (
    FactLayers,
    SubjectScore,
    Sweep,
    TriedLayer,
    fact_layers,
    read_sweep,
    save_sweep,
)
from mindset.facts.learn import learn
from mindset.facts.phrasings import RARER, RELATIONS, guards
from mindset.facts.probe_facts import ELSEWHERE, PROBE_FACTS
from mindset.facts.sweep import sweep_folder, sweep_layers
from mindset.facts.target_scores import target_scores
from mindset.facts.written import mounted_facts, write_facts
from mindset.graft.convert import convert
from mindset.graft.folder import load
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import load_teacher
from mindset.store.memory import Memory

WIDTH = 32
FACTS = parse_facts("Ada Quux spoke => Welsh", "facts")


def _noise(*named: object) -> torch.Tensor:
    rng = np.random.default_rng(zlib.crc32(repr(named).encode()))
    return torch.from_numpy(rng.standard_normal(WIDTH)).float()


class Planted:
    """In place of what blocks see: one layer knows subjects, all others see noise."""

    def __init__(self, tokenizer: object, subject: int) -> None:
        self.tokenizer, self.subject = tokenizer, subject

    def __call__(
        self, _: object, cuts: Sequence[Cut], layers: Sequence[int]
    ) -> list[dict[int, torch.Tensor]]:
        return [{layer: self._seen(cut, layer) for layer in layers} for cut in cuts]

    def _seen(self, cut: Cut, layer: int) -> torch.Tensor:
        text = self.tokenizer.decode(cut.ids)  # type: ignore[attr-defined]
        rows = torch.stack([_noise(layer, text, place) for place in range(cut.at, len(cut.ids))])
        if layer == self.subject:
            named = next((p.fact.subject for p in PROBE_FACTS if p.fact.subject in text), text[:12])
            rows[0] = 0.2 * rows[0] + 2 * _noise("subject", named)
        return rows


@pytest.mark.parametrize("subject", [0, 1, 2])
def test_the_layer_that_knows_subjects_is_found(
    subject: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_teacher(str(folder))
    planted = Planted(loaded.tokenizer, subject)
    for module in (sweep, keyed_lessons, background):
        monkeypatch.setattr(module, "inputs_from_cuts", planted)
    trial = sweep._Subjects(loaded.model, loaded.tokenizer, [0, 1, 2], QUICK)
    for probe in PROBE_FACTS[:5]:
        trial.take(probe)
    scores = {layer: trial.met(layer) for layer in (0, 1, 2)}
    assert scores.pop(subject)[0] > 0.9
    assert max(met for met, _ in scores.values()) < 0.3


def test_facts_are_tried_and_gone(folder: Path) -> None:
    """What is said with them is another thing than before, in the layer that was asked for; then it is as it was."""
    loaded = load_teacher(str(folder))
    ids = torch.tensor([loaded.tokenizer("Ada Quux spoke")["input_ids"]])
    with torch.no_grad():
        before = loaded.model(ids).logits
        written = write_facts(loaded.model, loaded.tokenizer, [FACTS.facts[0]], FactLayers(1, 2), QUICK)
        with mounted_facts(loaded.model, written, FactLayers(1, 2), 0.0, "x"):
            assert [name for bank in banks(loaded.model).values() for name in bank.overlays] == ["x", "x"]
            (said,) = target_scores(loaded.model, loaded.tokenizer, [FACTS.facts[0]])
        (unsaid,) = target_scores(loaded.model, loaded.tokenizer, [FACTS.facts[0]])
        assert said.probability > 1.1 * unsaid.probability
        assert torch.equal(loaded.model(ids).logits, before)


def test_what_is_mounted_to_be_tried_is_what_would_be_learned(folder: Path) -> None:
    """But for rounding to bytes."""
    loaded = load_teacher(str(folder))
    layers = FactLayers(1, 2)
    written = write_facts(loaded.model, loaded.tokenizer, FACTS.facts, layers, QUICK)
    with mounted_facts(loaded.model, written, layers, QUICK.lean, "x"):
        (tried,) = target_scores(loaded.model, loaded.tokenizer, FACTS.facts)
    (learned,) = learn(folder, FACTS, settings=QUICK).facts
    assert tried.probability == pytest.approx(learned.after, rel=0.05)
    assert learned.after > 1.1 * learned.before


def test_the_layer_in_which_facts_say_something_is_chosen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, real = load_teacher(str(folder)), sweep._tried

    def tried(*given: object) -> TriedLayer:
        found = real(*given)  # type: ignore[arg-type]
        assert 0 <= found.said <= 1
        assert 0 < found.kept <= 1
        return TriedLayer(found.layer, 0.9 if found.layer == 3 else 0.2, found.kept)

    monkeypatch.setattr(sweep, "_AMONG", (0.3, 0.9))
    monkeypatch.setattr(sweep, "_tried", tried)
    for module in (names, keyed_lessons):
        monkeypatch.setattr(module, "NAMES", names.NAMES[:20])
    found = sweep_layers(loaded.model, loaded.tokenizer, QUICK, PROBE_FACTS[:2])
    assert found.layers.fact == 3
    assert found.layers.subject < 2
    assert [one.layer for one in found.facts] == [2, 3]
    assert [one.layer for one in found.subjects] == [0, 1, 2]


@given(st.integers(2, 60), st.sets(st.integers(0, 59), min_size=1))
def test_few_layers_are_tried_and_the_usual_one_is_among_them(count: int, there: set[int]) -> None:
    layers = sorted(one for one in there if one < count) or [count - 1]
    model = SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=count))
    )
    found = sweep._candidates(layers, model)  # type: ignore[arg-type]
    assert set(found) <= set(layers)
    assert len(found) <= sweep._MOST + 1
    assert min(layers, key=lambda one: (abs(one - 0.53 * count), one)) in found


def test_a_choice_is_kept_and_gone_by(folder: Path) -> None:
    """Learned where the sweep said; an overlay that is there keeps to its own layers."""
    learn(folder, FACTS, "before", settings=QUICK)
    with Memory(folder) as memory:
        generation = memory.store.memory.generation
    assert read_sweep(folder / "memory", generation) is None
    chosen = Sweep(FactLayers(0, 3), (SubjectScore(0, 0.5, 0.1),), (TriedLayer(3, 0.25, 0.9),))
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
    monkeypatch.setattr(sweep_layers, "__defaults__", (QUICK, PROBE_FACTS[:2]))
    monkeypatch.setattr(sweep, "WriteSettings", lambda: QUICK)
    for module in (names, keyed_lessons):
        monkeypatch.setattr(module, "NAMES", names.NAMES[:20])
    done = CliRunner().invoke(app, ["memory", "sweep", str(folder), "--threads", "1", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [one["layer"] for one in told["subjects"]] == [0, 1, 2]
    assert [one["layer"] for one in told["facts"]] == [2, 3]
    assert told["layers"]["subject"] < told["layers"]["fact"]
    with Memory(folder, read_only=True) as memory:
        kept = read_sweep(folder / "memory", memory.store.memory.generation)
        assert memory.store.verify() == []
        assert memory.history() == []
    assert kept is not None
    assert kept.layers == FactLayers(**told["layers"])
    shown = CliRunner().invoke(app, ["memory", "sweep", str(folder), "--threads", "1"])
    assert shown.exit_code == 0, shown.output
    assert "others kept" in shown.stdout
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


@given(st.dictionaries(st.integers(0, 40), st.floats(0, 1), min_size=1))
def test_the_best_is_chosen_or_one_that_is_as_good_and_nearer(scores: dict[int, float]) -> None:
    chosen, best = sweep._chosen(scores, 7.2), max(scores.values())
    assert scores[chosen] > best - 0.02
    assert all(abs(layer - 7.2) >= abs(chosen - 7.2) for layer, one in scores.items() if one > best - 0.02)
