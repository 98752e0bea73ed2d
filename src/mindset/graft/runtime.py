"""Where and how a model computes: device, dtype, CPU threads and the seed that names the randomness.

Knows nothing of models and imports torch only when asked for something of torch's, so the command line can
hold one without loading it. Invariant: outside `active()` torch's thread count is what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from mindset.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["Dtype", "Runtime", "multiplies_bfloat16"]

Dtype = Literal["float32", "float64", "bfloat16", "float16"]


@dataclass(frozen=True)
class Runtime:
    """How to compute."""

    device: str = "cpu"
    """A torch device, as torch spells it: cpu, cuda, cuda:1, mps."""
    dtype: Dtype | None = None
    """Type to compute in; None leaves it to the model: as it was saved, float32 for a teacher."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to torch."""
    seed: int = 0
    """Names all randomness; the same seed gives the same result on the same machine."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.dtype is not None and self.dtype not in get_args(Dtype):
            raise UsageError(f"dtype {self.dtype!r} is not one of {', '.join(get_args(Dtype))}")
        if self.threads < 0:
            raise UsageError(
                f"{self.threads} threads cannot be: give 1 or more, or 0 to leave the choice to torch"
            )

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The dtype as torch's own object."""
        import torch

        dtype: torch.dtype | None = None if self.dtype is None else getattr(torch, self.dtype)
        return dtype

    @contextmanager
    def active(self) -> Iterator[None]:
        """Hold torch to the number of threads until the block ends."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def multiplies_bfloat16(device: str) -> bool:
    """Whether this device has instructions for products in bfloat16; without them they are slower than in float32."""
    import torch

    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.device(device).type != "cpu":
        return False
    told = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(told.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
