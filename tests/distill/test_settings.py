from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from mindset.distill.settings import DistillSettings, completed
from mindset.errors import UsageError
from mindset.graft.plan import ConversionPlan


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "steps or of minutes"),
        ({"steps": 5, "minutes": 1.0}, "not both"),
        ({"steps": 0}, "steps = 0"),
        ({"minutes": 0.0}, "minutes = 0"),
        ({"minutes": float("inf")}, "minutes = inf"),
        ({"minutes": float("nan")}, "minutes = nan"),
        ({"steps": 5, "local_share": 1.5}, "local_share"),
        ({"steps": 5, "anneal": -0.1}, "anneal"),
        ({"steps": 5, "warmup": 1.0}, "warmup"),
        ({"steps": 5, "batch": 0}, "batch = 0"),
        ({"steps": 5, "seq_len": 1}, "seq_len = 1"),
        ({"steps": 5, "data": ()}, "nothing to train on"),
        ({"steps": 5, "lr": 0.0}, "lr = 0"),
        ({"steps": 5, "lr_end_to_end": float("nan")}, "lr_end_to_end = nan"),
        ({"steps": 5, "clip": -1.0}, "clip = -1"),
        ({"steps": 5, "heal_steps": -1}, "heal_steps = -1"),
        ({"steps": 5, "revive_every": -1}, "revive_every = -1"),
        ({"steps": 5, "checkpoint_every": -1}, "checkpoint_every = -1"),
        ({"steps": 5, "dense_lr_factor": -0.1}, "dense_lr_factor = -0.1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        DistillSettings(**given)


def test_what_cannot_be_trained_is_refused_with_what_can() -> None:
    settings = DistillSettings(steps=5)
    object.__setattr__(settings, "trained", "head")  # past the tests' type checker
    with pytest.raises(UsageError, match="'head' cannot be trained; allowed: memory, all, attention"):
        settings.__post_init__()


def test_a_precision_that_is_none_is_refused() -> None:
    settings = DistillSettings(steps=5)
    object.__setattr__(settings, "precision", "16")  # past the tests' type checker
    with pytest.raises(UsageError, match="'16' is no precision; allowed: 32, bf16-mixed"):
        settings.__post_init__()


def test_what_an_older_version_wrote_is_completed_by_defaults() -> None:
    told = DistillSettings(steps=5, batch=3).to_json()
    older = {name: value for name, value in told.items() if name != "precision"}
    assert completed(older) == told
    assert completed(told | {"precision": "bf16-mixed"})["precision"] == "bf16-mixed"


def test_settings_are_frozen_and_json() -> None:
    settings = DistillSettings(steps=5, plan=ConversionPlan(k=3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.steps = 6  # type: ignore[misc]
    told = json.loads(json.dumps(settings.to_json()))
    assert told["plan"]["k"] == 3
    assert set(told) == {field.name for field in dataclasses.fields(DistillSettings)}
