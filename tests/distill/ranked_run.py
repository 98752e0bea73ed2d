"""A training run for torchrun; the first process leaves the student's weights in `student.safetensors`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from distill.small import make_run, make_settings
from safetensors.torch import save_file

from mindset.distill.ranks import ranks
from mindset.distill.training import train
from mindset.graft.plan import ConversionPlan


def main(folder: Path, told: str) -> None:
    torch.set_num_threads(1)
    given = json.loads(told)
    settings = make_settings(
        ConversionPlan(**given["plan"]), **{**given["settings"], "data": tuple(given["settings"]["data"])}
    )
    run = make_run(folder, settings)
    train(run)
    state = {name: p.detach().clone() for name, p in run.student.named_parameters()}
    save_file(state, folder / f"student-{ranks().rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
