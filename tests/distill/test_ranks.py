"""Several processes, one student."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from distill.small import make_run, make_settings, write_text
from safetensors.torch import load_file

from mindset.distill.ranks import Ranks, ranks
from mindset.distill.training import train
from mindset.graft.plan import ConversionPlan

TESTS = Path(__file__).resolve().parent.parent


def under_torchrun(folder: Path, plan: dict[str, Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
    environment = os.environ | {
        "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent / 'src'}",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    told = json.dumps({"plan": plan, "settings": settings})
    done = subprocess.run(
        [*command, "-m", "distill.ranked_run", str(folder), told],
        env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [load_file(folder / f"student-{rank}.safetensors") for rank in range(2)]


def test_alone_a_process_is_the_first_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks() == Ranks(0, 1, 0, 1)
    assert ranks().first
    said = {
        "TORCHELASTIC_RUN_ID": "x",
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert asdict(ranks()) == {"rank": 3, "world": 4, "local_rank": 1, "local_world": 2}
    assert not ranks().first


def test_two_processes_train_what_one_trains_with_batches_twice_as_large(tmp_path: Path) -> None:
    text = str(write_text(tmp_path / "words.txt"))
    plan = {"k": 6, "skip": "affine"}
    shared = {"data": [text], "steps": 6, "local_share": 0.0, "fit": "none"}
    batch = make_settings(ConversionPlan(**plan), **{**shared, "data": (text,)}).batch
    assert batch % 2 == 0
    one, other = under_torchrun(tmp_path / "two", plan, shared | {"batch": batch // 2})
    assert all(torch.equal(one[name], other[name]) for name in one)
    settings = make_settings(ConversionPlan(**plan), **{**shared, "data": (text,)})
    alone = make_run(tmp_path / "one", settings)
    before = {name: p.detach().clone() for name, p in alone.student.named_parameters()}
    train(alone)
    moved = 0.0
    for name, parameter in alone.student.named_parameters():
        torch.testing.assert_close(one[name], parameter.detach(), rtol=1e-3, atol=1e-4, msg=name)
        moved = max(moved, float((parameter.detach() - before[name]).abs().max()))
    assert moved > 1e-3


@pytest.mark.slow
def test_time_and_revived_slots_are_shared(tmp_path: Path) -> None:
    text = str(write_text(tmp_path / "words.txt"))
    plan = {"bank": "featural", "slots": 64, "heads": 2, "k": 4}
    settings = {"data": [text, "self"], "steps": None, "minutes": 0.05, "local_share": 0.5, "revive_every": 4}
    one, other = under_torchrun(tmp_path / "two", plan, settings)
    assert all(torch.equal(one[name], other[name]) for name in one)
