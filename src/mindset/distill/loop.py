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
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from mindset.distill.checkpoint import FolderCheckpointIO
from mindset.distill.mixture import Mixture
from mindset.distill.stages import Stage

__all__ = ["Progress", "run_stage"]

Progress = Callable[..., None]
"""`progress(stage, done, total, **figures)`: done and total in per mille of the stage."""


class _Batches(IterableDataset[Tensor]):
    """The mixture as an endless dataset; its position lives in the mixture, not here."""

    def __init__(self, data: Mixture) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield self.data.next_batch()


class _Watch(Callback):
    """Saves a checkpoint every so many steps and tells the caller how far the stage is."""

    def __init__(self, folder: Path, every: int, progress: Progress) -> None:
        self.folder, self.every, self.progress = folder, every, progress

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        stage: Any = module
        figures = {"loss": float(trainer.callback_metrics.get(f"{stage.name}/loss", float("nan")))}
        self.progress(stage.name, round(1000 * stage.clock.progress), 1000, steps=stage.clock.done, **figures)
        if self.every and stage.clock.done % self.every == 0 and not stage.clock.over:
            trainer.save_checkpoint(self.folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's tips and device lines kept off the terminal; its warnings about what we do on purpose too."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            warnings.filterwarnings("ignore", message=".*isn't picklable.*|.*_IncompatibleKeys.*")
            warnings.filterwarnings("ignore", message=".*treespec.*LeafSpec.*")
            warnings.filterwarnings("ignore", message=".*epoch but.*|.*mid-epoch.*|.*resumed from.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def run_stage(
    stage: Stage, run: Path, *, resume: bool, progress: Progress, accelerator: str = "cpu", devices: int | str = 1
) -> None:
    """Train one stage to its end, from its checkpoint where `resume` is set and there is one."""
    checkpoint = run / "checkpoints" / stage.name
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        trainer = L.Trainer(
            accelerator=accelerator,
            devices=devices,
            max_steps=-1,
            max_epochs=-1,
            logger=TensorBoardLogger(save_dir=str(run), name="tensorboard", version=stage.name),
            log_every_n_steps=10,
            callbacks=[_Watch(checkpoint, stage.settings.checkpoint_every, progress)],
            plugins=[FolderCheckpointIO()],
            gradient_clip_val=stage.settings.clip or None,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        loader = DataLoader(_Batches(stage.data), batch_size=None, num_workers=0)
        start = str(checkpoint) if resume and checkpoint.exists() else None
        trainer.fit(stage, train_dataloaders=loader, ckpt_path=start)
