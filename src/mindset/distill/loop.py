"""One stage under Lightning: trainer, checkpoints, resume, progress.

Any accelerator and, through Lightning, several devices; nothing assumes a CPU. Files go under the run folder only.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from mindset.distill.checkpoint import FolderCheckpointIO, has_checkpoint
from mindset.distill.mixture import Mixture
from mindset.distill.ranks import ranks
from mindset.distill.stages import Stage

__all__ = ["Progress", "run_stage"]

Progress = Callable[..., None]
"""`progress(stage, done, total, **figures)`: done and total in per mille of the stage."""


class _Batches:
    """The mixture as an endless loader; its position lives in the mixture, not here.

    Of several processes each takes its own batch of every round, so that all stand at the same place.

    It gives a length, which no run reaches, because Lightning reads one batch ahead where there is none: then a
    checkpoint would hold the position after a batch that was not trained on yet.
    """

    def __init__(self, data: Mixture) -> None:
        self.data = data

    def __len__(self) -> int:
        return 2**40

    def __iter__(self) -> Iterator[Tensor]:
        place = ranks()
        while True:
            given = [self.data.next_batch() for _ in range(place.world)]
            yield given[place.rank]

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps in a checkpoint."""
        return self.data.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.data.load_state_dict(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's tips and device lines kept off the terminal; its warnings about what we do on purpose too."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Only banks train in training mode (see `stages`).
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
            # Lightning 2.6 asks torch 2.13's pytree in a way that torch has deprecated.
            warnings.filterwarnings(
                "ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning
            )
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def run_stage(
    stage: Stage,
    run: Path,
    *,
    resume: bool,
    progress: Progress,
    device: str = "cpu",
) -> None:
    """Train one stage to its end, from its checkpoint where `resume` is set and there is one."""
    place, where = ranks(), torch.device(device)
    checkpoint = run / "checkpoints" / stage.name
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    start = str(checkpoint) if resume and has_checkpoint(checkpoint) else None
    with _quiet():
        trainer = L.Trainer(
            accelerator=where.type,
            devices=[where.index] if ":" in device and place.world == 1 else place.local_world,
            num_nodes=place.world // place.local_world,
            strategy="ddp_find_unused_parameters_true" if place.world > 1 else "auto",
            max_steps=-1,
            max_epochs=-1,
            logger=TensorBoardLogger(save_dir=str(run), name="tensorboard", version=stage.name),
            plugins=[FolderCheckpointIO()],
            precision=stage.settings.precision,
            gradient_clip_val=stage.settings.clip or None,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )

        def after_step(loss: float) -> None:
            clock, every = stage.clock, stage.settings.checkpoint_every
            if place.first:
                progress(stage.name, round(1000 * clock.progress), 1000, steps=clock.done, loss=loss)
            if every and clock.done % every == 0 and not trainer.should_stop:
                trainer.save_checkpoint(checkpoint)

        stage.after_step = after_step
        try:
            trainer.fit(stage, train_dataloaders=_Batches(stage.data), ckpt_path=start)
        finally:
            stage.after_step = None
            stage.close()
