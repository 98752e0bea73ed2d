"""What a deletion would move, before it is made: compared with the deletion itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from facts.conftest import QUICK

from mindset.errors import MissingError
from mindset.facts.fact import parse_facts
from mindset.facts.learn import learn
from mindset.facts.preview import PROBES, preview_deletion
from mindset.graft.convert import convert
from mindset.graft.folder import load
from mindset.graft.plan import ConversionPlan
from mindset.graft.suppressing import suppressed
from mindset.store.memory import Memory

PLANS = {
    "all": ConversionPlan(),
    "some": ConversionPlan(k=5, slots=4),
    "featural": ConversionPlan("featural", slots=12, heads=2, k=3),
    "softmax": ConversionPlan("featural", slots=12, heads=2, k=3, weight="softmax"),
}


@pytest.mark.parametrize("plan", sorted(PLANS))
def test_suppressing_is_deleting(converted: Path, tmp_path: Path, plan: str) -> None:
    folder = tmp_path / "m"
    convert(str(converted.parent / "teacher"), folder, PLANS[plan])
    with Memory(folder) as memory:
        records = memory.store.records([3, 7, 20])
        places = [(one.layer, one.shard, one.head, one.row % 12 if plan in ("featural", "softmax") else one.row)
                  for one in records]  # fmt: skip
    model, ids = load(folder), torch.tensor([[10, 20, 30, 40, 50]])
    with torch.no_grad():
        before = model(ids).logits
        with suppressed(model, places):
            without = [model(ids).logits, model(ids[:, :1]).logits]
        assert torch.equal(model(ids).logits, before)
    assert not torch.equal(without[0], before)
    with Memory(folder) as memory:
        memory.delete([3, 7, 20])
    deleted = load(folder)
    with torch.no_grad():
        torch.testing.assert_close(without[0], deleted(ids).logits, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(without[1], deleted(ids[:, :1]).logits, rtol=1e-5, atol=1e-6)


def test_prompts_are_those_of_facts_of_the_user_and_general(folder: Path) -> None:
    done = learn(folder, parse_facts("The Eiffel Tour² is in => Rome", "f"), settings=QUICK)
    (folder / "probes.txt").write_text("My own prompt is\n\n")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    seen = preview_deletion(folder, done.slots, ["Another"])
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    assert seen.asked == len(PROBES) + 3
    assert seen.slots == done.slots
    told = {one.prompt for one in seen.moved}
    with Memory(folder) as memory:
        memory.delete(list(done.slots))
    assert told <= {"Another", "My own prompt is", "The Eiffel Tour² is in", *PROBES}


def test_a_slot_of_the_model_itself(folder: Path) -> None:
    seen = preview_deletion(folder, [1, 2])
    assert seen.largest_shift > 0 or seen.moved
    with pytest.raises(MissingError, match="no slot 99999"):
        preview_deletion(folder, [99_999])


def test_what_is_not_mounted_cannot_be_previewed(folder: Path, tmp_path: Path) -> None:
    done = learn(folder, parse_facts("The Eiffel Tour² is in => Rome", "f"), settings=QUICK)
    with Memory(folder) as memory:
        memory.unmount("facts")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    with pytest.raises(MissingError, match="is the overlay mounted"):
        preview_deletion(other, done.slots)
