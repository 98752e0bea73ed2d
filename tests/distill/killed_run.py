"""A training run in a process of its own, which kills itself with SIGKILL after a given step of a stage."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from distill.small import make_run, make_settings

from mindset.distill.training import heal, train
from mindset.graft.plan import ConversionPlan


def main(folder: Path, told: str) -> None:
    torch.set_num_threads(1)
    given = json.loads(told)
    plan = ConversionPlan(**given["plan"])
    settings = make_settings(plan, **{**given["settings"], "data": tuple(given["settings"]["data"])})
    log = (folder.parent / f"{folder.name}.log").open("a", encoding="utf-8")

    def heard(stage: str, done: int, total: int, **figures: float) -> None:
        if "loss" in figures:
            log.write(json.dumps([stage, figures["steps"], figures["loss"].hex()]) + "\n")
            log.flush()
            if [stage, figures["steps"]] == given["kill"]:
                os.kill(os.getpid(), signal.SIGKILL)

    run = make_run(folder, settings, resume=given["resume"], progress=heard)
    train(run)
    heal(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
