from __future__ import annotations

import json
import os
import pickletools
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distill.small import digest, make_run, make_settings, make_teacher, weights, write_text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mindset.distill.settings import DistillSettings
from mindset.distill.training import heal, train
from mindset.errors import RunMismatchError, UsageError
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan

TESTS = Path(__file__).resolve().parent.parent
Step = tuple[str, int, float]

PLANS: dict[str, dict[str, Any]] = {
    "mirror": {"k": 6, "skip": "affine", "slots": 16},
    "proposed": {"k": 6, "propose": "proxy:4", "candidates": 16},
    "featural": {"bank": "featural", "slots": 64, "heads": 2, "k": 4, "skip": "lowrank:4"},
    "associative": {"bank": "associative", "slots": 64, "k": 4},
}


class Heard(list[Step]):
    """The loss of every step, as progress tells it."""

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        if "loss" in figures:
            self.append((stage, int(figures["steps"]), figures["loss"]))


def last(steps: Iterable[Step]) -> list[Step]:
    """Each step once, as it was gone through last, in order."""
    return sorted({(stage, step): (stage, step, loss) for stage, step, loss in steps}.values())


@pytest.fixture
def text(tmp_path: Path) -> str:
    return str(write_text(tmp_path / "words.txt"))


def trained(folder: Path, settings: DistillSettings, *, resume: bool = False) -> tuple[Any, Heard]:
    heard = Heard()
    run = make_run(folder, settings, resume=resume, progress=heard)
    train(run)
    return run, heard


# ---- what a run is -------------------------------------------------------------------------------------------


def test_a_run_has_its_stages_and_says_what_it_read(tmp_path: Path, text: str) -> None:
    settings = make_settings(data=("self", f"{text}=3"), steps=20, local_share=0.25)
    teacher = make_teacher()
    untouched = digest(teacher)
    heard = Heard()
    run = make_run(tmp_path / "run", settings, progress=heard, teacher=teacher)
    uses = train(run)
    assert [(stage, step) for stage, step, _ in heard] == [
        *(("local", step) for step in range(1, 6)),
        *(("end_to_end", step) for step in range(1, 16)),
    ]
    assert run.steps == {"local": 5, "end_to_end": 15}
    assert all(seconds > 0 for seconds in run.seconds.values())
    assert [round(use.weight, 2) for use in uses] == [0.25, 0.75]
    assert sum(use.tokens_seen for use in uses) == 15 * settings.batch * settings.seq_len
    assert digest(teacher) == untouched


@pytest.mark.parametrize(("share", "stages"), [(0.0, {"end_to_end": 6}), (1.0, {"local": 6})])
def test_a_share_of_nothing_skips_a_stage(
    tmp_path: Path, text: str, share: float, stages: dict[str, int]
) -> None:
    run, _ = trained(tmp_path / "run", make_settings(data=(text,), steps=6, local_share=share))
    assert run.steps == stages


def test_minutes_limit_a_run(tmp_path: Path, text: str) -> None:
    run, _ = trained(tmp_path / "run", make_settings(data=(text,), steps=None, minutes=3 / 60, fit="none"))
    assert all(steps > 1 for steps in run.steps.values())
    assert 3 <= sum(run.seconds.values()) < 6


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_the_closed_form_comes_before_the_first_step(tmp_path: Path, text: str, share: float) -> None:
    plan, losses = ConversionPlan(k=2, skip="affine"), {}
    fits: tuple[Any, ...] = ("none", "skip", "values")
    for fit in fits:
        settings = make_settings(plan, data=(text,), steps=1, local_share=share, fit=fit, fit_tokens=4000)
        _, heard = trained(tmp_path / fit, settings)
        losses[fit] = heard[0][2]
    assert losses["values"] < losses["skip"] < 0.9 * losses["none"]


def test_proposers_are_calibrated_again_once_the_keys_moved(tmp_path: Path, text: str) -> None:
    plan = ConversionPlan(**PLANS["proposed"])
    settings = make_settings(plan, data=(text,), steps=4, local_share=1.0)
    run = make_run(tmp_path / "run", settings)
    before = weights(run.student)
    train(run)
    after = weights(run.student)
    assert all(before[name] != after[name] for name in after if "key_low" in name or "modulator_rms" in name)


# ---- precision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_mixed_precision_trains_as_well_and_keeps_parameters_whole(
    tmp_path: Path, text: str, plan: dict[str, Any]
) -> None:
    made = make_settings(ConversionPlan(**plan), data=(text,), steps=12)
    whole, heard = trained(tmp_path / "32", made)
    mixed, rounded = trained(tmp_path / "bf16", replace(made, precision="bf16-mixed"))
    assert {tensor.dtype for tensor in mixed.student.parameters()} == {torch.float32}
    assert digest(mixed.student) != digest(whole.student)
    for (stage, _, loss), (_, _, other) in zip(heard, rounded, strict=True):
        assert other == pytest.approx(loss, rel=0.05, abs=0.005), stage


def test_mixed_precision_repeats_itself(tmp_path: Path, text: str) -> None:
    settings = make_settings(data=("self", text), steps=8, precision="bf16-mixed")
    first, heard = trained(tmp_path / "1", settings)
    second, again = trained(tmp_path / "2", settings)
    assert heard == again
    assert digest(first.student) == digest(second.student)
    assert digest(first.teacher) == digest(make_teacher())


def test_mixed_precision_draws_from_a_copy_in_bfloat16(tmp_path: Path) -> None:
    settings = make_settings(data=("self",), steps=2, precision="bf16-mixed")
    run = make_run(tmp_path / "run", settings)
    samples = run.data("local")
    assert run.teacher.dtype == torch.float32
    assert run._in_bfloat16.dtype == torch.bfloat16
    whole = make_run(tmp_path / "32", replace(settings, precision="32"))
    assert whole.data("local")._streams[0].digest != samples._streams[0].digest
    assert whole._in_bfloat16 is None


# ---- determinism ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_same_seed_gives_the_same_bits(tmp_path: Path, text: str, plan: dict[str, Any]) -> None:
    settings = make_settings(ConversionPlan(**plan), data=("self", text), steps=12, revive_every=4)
    torch.manual_seed(1)
    first, heard = trained(tmp_path / "1", settings)
    torch.manual_seed(2)
    second, again = trained(tmp_path / "2", settings)
    assert heard == again
    assert digest(first.student) == digest(second.student)


def test_another_seed_reads_other_batches(tmp_path: Path, text: str) -> None:
    runs = [
        trained(tmp_path / str(seed), make_settings(data=(text,), steps=6, seed=seed))[1] for seed in (0, 1)
    ]
    assert runs[0] != runs[1]


def test_checkpoints_change_nothing(tmp_path: Path, text: str) -> None:
    runs = [
        trained(tmp_path / str(every), make_settings(data=(text,), steps=12, checkpoint_every=every))
        for every in (0, 1)
    ]
    assert runs[0][1] == runs[1][1]
    assert digest(runs[0][0].student) == digest(runs[1][0].student)


# ---- resuming ------------------------------------------------------------------------------------------------


class BrokenOffError(Exception):
    """As Ctrl-C, but for the tests."""


def broken_off(
    folder: Path, settings: DistillSettings, at: tuple[str, int], *, resume: bool = False
) -> Heard:
    """Train until the step `at` is done, and drop everything that is not on disk."""

    class Breaking(Heard):
        def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
            super().__call__(stage, done, total, **figures)
            if (stage, figures.get("steps")) == at:
                raise BrokenOffError

    heard = Breaking()
    with pytest.raises(BrokenOffError):
        train(make_run(folder, settings, resume=resume, progress=heard))
    return heard


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        ("mirror", ("local", 6)),
        ("proposed", ("end_to_end", 8)),
        ("featural", ("local", 1)),
        ("associative", ("local", 8)),
        ("associative", ("end_to_end", 2)),
    ],
)
def test_a_resumed_run_takes_the_same_steps_to_the_same_bits(
    tmp_path: Path, text: str, kind: str, at: tuple[str, int]
) -> None:
    settings = make_settings(
        ConversionPlan(**PLANS[kind]), data=("self", f"{text}=2"), steps=20, local_share=0.5, checkpoint_every=3,
        revive_every=4, anneal=0.5, trained="all",
    )  # fmt: skip
    whole, wanted = trained(tmp_path / "whole", settings)
    first = broken_off(tmp_path / "run", settings, at)
    resumed, rest = trained(tmp_path / "run", settings, resume=True)
    began = {stage: step for stage, step, _ in reversed(rest)}
    assert (
        began[at[0]] == (at[1] - 1) // 3 * 3 + 1
    )  # after the last checkpoint, which the broken step did not reach
    assert last([*first, *rest]) == sorted(wanted)
    assert digest(resumed.student) == digest(whole.student)
    assert resumed.steps == whole.steps
    assert resumed.seconds.keys() == whole.seconds.keys()


def test_a_run_may_be_broken_off_again_and_again(tmp_path: Path, text: str) -> None:
    settings = make_settings(data=(text,), steps=20, local_share=0.5, checkpoint_every=2)
    whole, wanted = trained(tmp_path / "whole", settings)
    heard: list[Step] = [*broken_off(tmp_path / "run", settings, ("local", 4))]
    for at in (("local", 9), ("end_to_end", 1), ("end_to_end", 6)):
        heard += broken_off(tmp_path / "run", settings, at, resume=True)
    resumed, rest = trained(tmp_path / "run", settings, resume=True)
    assert last([*heard, *rest]) == sorted(wanted)
    assert digest(resumed.student) == digest(whole.student)


def test_a_finished_run_is_loaded_not_trained(tmp_path: Path, text: str) -> None:
    settings = make_settings(data=(text,), steps=8, checkpoint_every=3)
    whole, _ = trained(tmp_path / "run", settings)
    resumed, heard = trained(tmp_path / "run", settings, resume=True)
    assert heard == []
    assert digest(resumed.student) == digest(whole.student)
    assert (resumed.steps, resumed.seconds) == (whole.steps, whole.seconds)


def test_time_goes_on_where_it_was(tmp_path: Path, text: str) -> None:
    settings = make_settings(
        data=(text,), steps=None, minutes=4 / 60, local_share=1.0, checkpoint_every=1, fit="none"
    )
    first = broken_off(tmp_path / "run", settings, ("local", 5))
    resumed, rest = trained(tmp_path / "run", settings, resume=True)
    assert rest[0][1] == 5  # the fifth step's checkpoint was not written yet
    assert resumed.steps["local"] == rest[-1][1] > len(first)
    assert 4 <= resumed.seconds["local"] < 8


def test_other_data_under_a_checkpoint_is_refused(tmp_path: Path, text: str) -> None:
    settings = make_settings(data=(text,), steps=8, local_share=1.0, checkpoint_every=2)
    broken_off(tmp_path / "run", settings, ("local", 5))
    write_text(Path(text), seed=1)
    with pytest.raises(RunMismatchError, match="resume with the data"):
        trained(tmp_path / "run", settings, resume=True)


def test_a_run_folder_holds_no_pickle(tmp_path: Path, text: str) -> None:
    settings = make_settings(data=("self", text), steps=8, checkpoint_every=2)
    broken_off(tmp_path / "run", settings, ("end_to_end", 4))
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(path.parent.name == "end_to_end" and path.suffix == ".safetensors" for path in files)
    files = [path for path in files if path.name != "SHA256SUMS"]
    kinds = {path.suffix for path in files if not path.name.startswith("events.out.tfevents")}
    assert kinds == {".json", ".safetensors", ".npy", ".yaml"}
    for path in files:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                assert b"'descr': '<" in file.read(80), path  # numbers, no objects
        elif path.suffix != ".yaml":
            with pytest.raises(ValueError, match=r"."):
                list(pickletools.genops(path.read_bytes()))


# ---- kill -9 -------------------------------------------------------------------------------------------------


def in_a_process(folder: Path, plan: dict[str, Any], settings: dict[str, Any], **more: Any) -> int:
    told = json.dumps({"plan": plan, "settings": settings, "kill": None, "resume": False} | more)
    environment = os.environ | {
        "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent / 'src'}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "distill.killed_run", str(folder), told],
        env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    assert done.stdout == ""
    return done.returncode


def read_log(folder: Path) -> list[Step]:
    lines = (folder.parent / f"{folder.name}.log").read_text(encoding="utf-8").splitlines()
    return [(stage, step, float.fromhex(loss)) for stage, step, loss in map(json.loads, lines)]


@pytest.mark.parametrize(
    ("kind", "kill", "heals"),
    [
        ("mirror", ["local", 17], 0),
        ("associative", ["end_to_end", 12], 0),
        pytest.param("mirror", ["heal", 7], 10, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path: Path, text: str, kind: str, kill: list[Any], heals: int
) -> None:
    given = {
        "data": ["self", text], "steps": 40, "local_share": 0.5, "checkpoint_every": 5, "revive_every": 4,
        "heal_steps": heals,
    }  # fmt: skip
    settings = make_settings(ConversionPlan(**PLANS[kind]), **{**given, "data": ("self", text)})
    assert in_a_process(tmp_path / "run", PLANS[kind], given, kill=kill) == -signal.SIGKILL
    killed = read_log(tmp_path / "run")
    assert list(killed[-1][:2]) == kill

    def go(folder: Path, *, resume: bool) -> tuple[Any, Heard]:
        heard = Heard()
        run = make_run(folder, settings, resume=resume, progress=heard)
        train(run)
        heal(run)
        return run, heard

    whole, wanted = go(tmp_path / "whole", resume=False)
    resumed, rest = go(tmp_path / "run", resume=True)
    assert 0 < len(rest) < len(wanted)
    assert last([*killed, *rest]) == last(wanted)
    assert digest(resumed.student) == digest(whole.student)


# ---- TensorBoard ---------------------------------------------------------------------------------------------


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_holds_losses_fvu_k_slot_use_and_dead_slots(tmp_path: Path, text: str) -> None:
    settings = make_settings(
        ConversionPlan(k=6, slots=16), data=(text,), steps=120, local_share=0.5, anneal=0.5, revive_every=30
    )
    _, heard = trained(tmp_path / "run", settings)
    losses = {(stage, step): loss for stage, step, loss in heard}
    local = scalars(tmp_path / "run/tensorboard/local")
    both = {f"{figure}/{layer:02d}" for layer in (0, 1) for figure in ("fvu", "slot_use", "dead_slots")}
    assert local.keys() == {f"local/{name}" for name in {"loss", "k", "revived", *both}}
    assert list(local["local/loss"]) == [10, 20, 30, 40, 50, 60]
    assert all(value == pytest.approx(losses["local", step]) for step, value in local["local/loss"].items())
    assert local["local/loss"][60] == pytest.approx(
        2**0.5 * (local["local/fvu/00"][60] + local["local/fvu/01"][60]) / 2
    )
    ks = list(local["local/k"].values())
    assert ks == sorted(ks, reverse=True)
    assert 6 < ks[0] <= 64
    assert ks[-1] == 6
    assert list(local["local/slot_use/00"]) == list(local["local/dead_slots/01"]) == [30, 60]
    for layer in ("00", "01"):
        for step in (30, 60):
            used = local[f"local/slot_use/{layer}"][step]
            assert local[f"local/dead_slots/{layer}"][step] == pytest.approx(64 * (1 - used))
    whole = scalars(tmp_path / "run/tensorboard/end_to_end")
    assert list(whole["end_to_end/loss"]) == [10, 20, 30, 40, 50, 60]
    assert set(whole["end_to_end/k"].values()) == {6}


def test_the_curves_of_a_resumed_run_are_those_of_a_whole_one(tmp_path: Path, text: str) -> None:
    settings = make_settings(data=(text,), steps=60, local_share=1.0, checkpoint_every=7)
    trained(tmp_path / "whole", settings)
    broken_off(tmp_path / "run", settings, ("local", 33))
    trained(tmp_path / "run", settings, resume=True)
    assert scalars(tmp_path / "run/tensorboard/local") == scalars(tmp_path / "whole/tensorboard/local")


# ---- healing -------------------------------------------------------------------------------------------------


def test_student_and_twin_are_healed_alike_and_the_teacher_is_not(tmp_path: Path, text: str) -> None:
    settings = make_settings(
        ConversionPlan(k=6, layers="1"), data=("self", text), steps=2, heal_steps=12, checkpoint_every=5
    )
    teacher = make_teacher()
    untouched, heard = digest(teacher), Heard()
    run = make_run(tmp_path / "run", settings, progress=heard, teacher=teacher)
    train(run)
    trained_before = digest(run.student)
    batches: list[bytes] = []
    data = run.data

    def watched(*given: Any) -> Any:
        mixture = data(*given)
        following = mixture.next_batch

        def next_batch() -> Any:
            batch = following()
            batches.append(batch.numpy().tobytes())
            return batch

        mixture.next_batch = next_batch  # type: ignore[method-assign]
        return mixture

    run.data = watched  # type: ignore[method-assign]
    twin = heal(run)
    assert digest(teacher) == untouched
    assert digest(run.student) != trained_before
    assert list(banks(twin)) == [1]
    assert all(bank.k is None for bank in banks(twin).values())
    assert (run.steps["heal"], run.steps["heal-teacher"]) == (12, 12)
    assert len(batches) == 24
    assert batches[:12] == batches[12:]
    changed = {name for name, value in weights(twin).items() if weights(teacher).get(name, value) != value}
    assert changed == set()  # everything outside the bank stayed the teacher's


def test_no_healing_no_twin(tmp_path: Path, text: str) -> None:
    assert heal(make_run(tmp_path / "run", make_settings(data=(text,)))) is None


def test_healing_needs_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_settings(data=("self=2",), heal_steps=3))
    with pytest.raises(UsageError, match="healing needs text"):
        heal(run)
