"""The teacher's own text: drawn in large batches as training goes on, kept on disk, never drawn twice.

Batch i is a function of the teacher, the settings and i alone, whoever asks for it and when; so a resumed run, a
second run with the same settings, and a cache that lost a file all see the same rows. A folder of the cache holds
`settings.json` and one `batch-00000000.npy` for each batch; another seed is another folder, which is how samples
are held out. Knows nothing of what the samples are for.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt32
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mindset.atomic_file import replacing
from mindset.distill.corpus import load_tokens, save_tokens, tokenizer_digest
from mindset.distill.document_starts import DocumentMix, DocumentStarts, usual_mix
from mindset.distill.sampling import Drawing, draw_rows
from mindset.distill.seeds import named_seed
from mindset.errors import RunMismatchError, UsageError

__all__ = ["SampleSettings", "SelfSamples", "weights_digest"]

_LAYOUT = "self-samples-1"


@dataclass(frozen=True)
class SampleSettings:
    """What decides which samples are drawn; equal settings of one teacher share their cache."""

    length: int = 256
    """Tokens in a drawn row; a multiple of the window that training reads."""
    batch: int = 64
    """Rows drawn at once; on two cores 256 are a sixth faster than 64 and take four times the memory."""
    temperature: float = 1.0
    """Divides the logits; 1 is the teacher's own distribution."""
    top_p: float | None = None
    """Draw from the likeliest tokens that together have this probability; None draws from all."""
    seed: int = 0
    """Another seed gives other samples."""
    mix: DocumentMix | None = None
    """How documents begin; None takes what is usual for the tokenizer."""

    def __post_init__(self) -> None:
        self.drawing()

    def drawing(self) -> Drawing:
        """Return how a batch is drawn."""
        return Drawing(self.batch, self.length, self.temperature, self.top_p)


class SelfSamples:
    """Windows of the teacher's own samples, fresh ones as long as they are asked for."""

    name = "self"
    skipped: tuple[str, ...] = ()

    def __init__(
        self,
        teacher: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: SampleSettings,
        *,
        seq_len: int,
        cache: Path,
        teacher_digest: str | None = None,
        limit_tokens: int | None = None,
        on_drawn: Callable[[int], None] | None = None,
    ) -> None:
        """`limit_tokens`: draw about so many, then go round; `on_drawn` hears of every so many tokens drawn."""
        if seq_len < 2 or settings.length % seq_len:
            raise UsageError(
                f"self: rows of {settings.length} tokens cannot be cut in windows of {seq_len}; "
                "let the sample length be a multiple of the window"
            )
        self.seq_len = seq_len
        self._teacher = teacher
        self._settings = settings
        self._mix = settings.mix or usual_mix(tokenizer)
        self._starts = DocumentStarts(tokenizer, self._mix)
        self._eos = tokenizer.eos_token_id
        self._on_drawn = on_drawn
        self._position = 0
        self._per_batch = settings.batch * settings.length // seq_len
        tokens_a_batch = settings.batch * settings.length
        self._n_batches = None if limit_tokens is None else max(1, limit_tokens // tokens_a_batch)
        self._identity = {
            "layout": _LAYOUT,
            "teacher": teacher_digest or weights_digest(teacher),
            "tokenizer": tokenizer_digest(tokenizer),
            "settings": asdict(settings) | {"mix": asdict(self._mix)},
        }
        self.digest = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()
        self._folder = cache / "self" / self.digest[:32]
        self._open: dict[int, UInt32[np.ndarray, "rows pos"]] = {}
        self._order: tuple[int, Int64[np.ndarray, " n_windows"]] | None = None

    @property
    def n_tokens(self) -> int | None:
        """Tokens there will be; None where fresh ones are drawn without end."""
        return None if self._n_batches is None else self._n_batches * self._per_batch * self.seq_len

    @property
    def tokens_seen(self) -> int:
        """Tokens given so far, repeats included."""
        return self._position * self.seq_len

    @property
    def distinct_tokens(self) -> int:
        """Tokens given so far, without repeats."""
        return self.tokens_seen if self.n_tokens is None else min(self.tokens_seen, self.n_tokens)

    @property
    def passes(self) -> float:
        """How often the samples were gone through; never more than 1 where fresh ones are drawn."""
        if self.n_tokens is not None:
            return self.tokens_seen / self.n_tokens
        return 1.0 if self._position else 0.0

    def take(self, n_rows: int) -> Int64[np.ndarray, "rows pos"]:
        """Return the next windows, drawing batches that are not in the cache yet."""
        rows = np.empty((n_rows, self.seq_len), dtype=np.int64)
        for row in rows:
            row[:] = self._window(*self._place(self._position))
            self._position += 1
        return rows

    def prepare(self, n_tokens: int) -> int:
        """Draw ahead, so that the next `n_tokens` are there; return how many had to be drawn."""
        last = self._position + -(-n_tokens // self.seq_len)
        batches = range(self._position // self._per_batch, -(-last // self._per_batch))
        if self._n_batches is not None:
            batches = range(min(batches.start, self._n_batches), min(batches.stop, self._n_batches))
        missing = [index for index in batches if self._load(index) is None]
        for index in missing:
            self._draw(index)
        return len(missing) * self._per_batch * self.seq_len

    def state(self) -> dict[str, int]:
        """Where the stream stands; JSON."""
        return {"position": self._position}

    def restore(self, state: dict[str, int]) -> None:
        """Stand where `state` says."""
        if state["position"] < 0:
            raise RunMismatchError(f"self: position {state['position']} was saved; it must be 0 or more")
        self._position = state["position"]

    def _place(self, position: int) -> tuple[int, int]:
        """Return the batch, and the window in it, that stand at `position`."""
        pool = None if self._n_batches is None else self._n_batches * self._per_batch
        if pool is None or position < pool:
            # As they come: nothing later may be waited for.
            index, within = divmod(position, self._per_batch)
            return index, int(self._shuffled(index, self._per_batch)[within])
        epoch, within = divmod(position, pool)
        return divmod(int(self._shuffled(-epoch, pool)[within]), self._per_batch)

    def _shuffled(self, which: int, n: int) -> Int64[np.ndarray, " n_windows"]:
        """Return the order of windows in batch `which`, or in epoch `-which`."""
        if self._order is None or self._order[0] != which:
            generator = np.random.default_rng(named_seed(self._settings.seed, "order", self.digest, which))
            self._order = which, generator.permutation(n)
        return self._order[1]

    def _window(self, index: int, within: int) -> Int64[np.ndarray, " pos"]:
        if index not in self._open:
            if self._n_batches is None:
                self._open.clear()  # never looked at again
            tokens = self._load(index)
            self._open[index] = self._draw(index) if tokens is None else tokens
        row, column = divmod(within, self._settings.length // self.seq_len)
        start = column * self.seq_len
        return self._open[index][row, start : start + self.seq_len].astype(np.int64)

    def _load(self, index: int) -> UInt32[np.ndarray, "rows pos"] | None:
        tokens = load_tokens(self._path(index))
        if tokens is None or tokens.shape != (self._settings.batch, self._settings.length):
            return None
        return tokens

    def _draw(self, index: int) -> UInt32[np.ndarray, "rows pos"]:
        settings = self._settings
        seeds = [named_seed(settings.seed, "openings", index, row) for row in range(settings.batch)]
        # No cipher is meant: the same documents must begin on every machine.
        generators = [random.Random(seed) for seed in seeds]  # noqa: S311
        tokens = draw_rows(
            self._teacher,
            lambda row: self._starts.draw(generators[row]),
            settings.drawing(),
            eos_token_id=self._eos,
            seed=named_seed(settings.seed, "tokens", index),
            on_position=self._told,
        )
        self._write_settings()
        save_tokens(self._path(index), tokens)
        return tokens.astype(np.uint32)

    def _told(self, _pos: int) -> None:
        if self._on_drawn is not None:
            self._on_drawn(self._settings.batch)

    def _write_settings(self) -> None:
        path = self._folder / "settings.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(json.dumps(self._identity, indent=1, sort_keys=True).encode())

    def _path(self, index: int) -> Path:
        return self._folder / f"batch-{index:08d}.npy"


def weights_digest(model: PreTrainedModel) -> str:
    """Name a model by its configuration and every byte of its weights (about a second a gigabyte)."""
    config = {
        key: value
        for key, value in model.config.to_dict().items()
        if key not in {"_name_or_path", "transformers_version"}
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
