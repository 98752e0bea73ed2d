"""Which process this is where several train one student together.

`torchrun --nproc-per-node N -m mindset distill ...` starts N processes that all do the same, but that each takes its
own share of the batches (Lightning averages the gradients) and only the first writes files and speaks. Alone, a process
is the first of one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Ranks", "ranks", "wait"]


@dataclass(frozen=True)
class Ranks:
    """A process among those of a run."""

    rank: int = 0
    """Number of this process, from 0."""
    world: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Number of this process on its machine; also that of its accelerator."""
    local_world: int = 1
    """Processes on this machine."""

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0


def ranks() -> Ranks:
    """What torchrun said in the environment."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Ranks()
    return Ranks(*(int(os.environ[name]) for name in names))


def wait() -> None:
    """Until every process is here; nothing before Lightning has connected them."""
    import torch.distributed as together

    if together.is_available() and together.is_initialized():
        together.barrier()
