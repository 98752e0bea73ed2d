"""Drawing text from a causal language model: many rows at once, one position at a time, with a KV cache.

Every row is full: it begins with an opening whose tokens are given, goes on with what the model says, and where the
model ends its document the next opening follows. All rows stand at the same position, so nothing is padded. The
result is a function of the weights, the openings and the seed. Knows nothing of files or of training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from mindset.errors import UsageError
from mindset.probe.logits import evaluation_mode

__all__ = ["Drawing", "draw_rows", "draw_tokens"]

_FREE = -1


@dataclass(frozen=True)
class Drawing:
    """How rows are drawn."""

    rows: int
    """Rows drawn at once."""
    length: int
    """Tokens in a row, openings included."""
    temperature: float = 1.0
    """Divides the logits; 1 is the model's own distribution."""
    top_p: float | None = None
    """Draw from the likeliest tokens that together have this probability; None draws from all."""

    def __post_init__(self) -> None:
        if self.rows < 1 or self.length < 2:
            raise UsageError(f"{self.rows} rows of {self.length} tokens: at least 1 row of at least 2 tokens")
        if self.temperature <= 0:
            raise UsageError(
                f"temperature {self.temperature}: must be above 0; 1 is the model's own distribution"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(
                f"top_p {self.top_p}: must be above 0 and at most 1; leave it out to draw from all"
            )


def draw_rows(
    model: PreTrainedModel,
    next_opening: Callable[[int], list[int]],
    drawing: Drawing,
    *,
    eos_token_id: int | None,
    seed: int,
    on_position: Callable[[int], None] | None = None,
) -> Int64[np.ndarray, "rows pos"]:
    """Draw full rows; `next_opening(row)` gives the tokens that the row's next document begins with."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and drawing.length > limit:
        raise UsageError(
            f"length {drawing.length}: this model reads at most {limit} tokens; draw shorter rows"
        )
    tokens = np.full((drawing.rows, drawing.length), _FREE, dtype=np.int64)
    for row in range(drawing.rows):
        _open(tokens[row], 0, next_opening(row))
    # All at once and on the CPU, so that they do not depend on the device.
    uniform = torch.rand((drawing.length, drawing.rows), generator=torch.Generator().manual_seed(seed))
    step = _Stepper(model, drawing.length)
    with torch.inference_mode(), evaluation_mode(model):
        for pos in range(1, drawing.length):
            logits = step(torch.from_numpy(tokens[:, pos - 1]))
            free = tokens[:, pos] == _FREE
            drawn = draw_tokens(logits, uniform[pos].to(logits.device), drawing.temperature, drawing.top_p)
            tokens[free, pos] = drawn.cpu().numpy()[free]
            for ended in np.flatnonzero(free & (tokens[:, pos] == eos_token_id)).tolist():
                _open(tokens[ended], pos + 1, next_opening(ended))
            if on_position is not None:
                on_position(pos)
    return tokens


def draw_tokens(
    logits: Float[Tensor, "rows vocab"],
    uniform: Float[Tensor, " rows"],
    temperature: float,
    top_p: float | None,
) -> Int[Tensor, " rows"]:
    """Draw one token a row, by where `uniform` in [0, 1) falls in the cumulative distribution.

    The same distribution as `torch.multinomial`, at a twentieth of its time for a vocabulary of 49,152.
    """
    probabilities = (logits.float() / temperature).softmax(-1)
    if top_p is not None:
        probabilities = _nucleus(probabilities, top_p)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    drawn = torch.searchsorted(cumulative, uniform[:, None] * total, right=True)
    # Rounding may carry the product up to the total: stay on the last token that has any probability.
    return drawn.minimum(torch.searchsorted(cumulative, total)).squeeze(-1)


def _nucleus(probabilities: Float[Tensor, "rows vocab"], top_p: float) -> Float[Tensor, "rows vocab"]:
    ordered, index = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities).scatter(-1, index, ordered.masked_fill(before >= top_p, 0.0))


def _open(row: Int64[np.ndarray, " pos"], pos: int, opening: list[int]) -> None:
    """Write as much of an opening as still fits in the row."""
    room = len(row) - pos
    row[pos : pos + len(opening)] = opening[:room]


class _Stepper:
    """One position a call: the tokens there in, the logits of the next position out."""

    def __init__(self, model: PreTrainedModel, length: int) -> None:
        self._model = model
        n_layers = model.config.get_text_config().num_hidden_layers
        layers: list[Any] = [_PreallocatedLayer(length) for _ in range(n_layers)]
        accepted = inspect.signature(model.forward).parameters
        # transformers renamed the argument in 5.24.
        self._arguments: dict[str, Any] = {
            "cache" if "cache" in accepted else "past_key_values": Cache(layers=layers),
            "use_cache": True,
        }
        if "logits_to_keep" in accepted:
            self._arguments["logits_to_keep"] = 1

    def __call__(self, tokens: Int64[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        output = self._model(input_ids=tokens[:, None].to(self._model.device), **self._arguments)
        logits: Tensor = output.logits[:, -1]
        return logits


class _PreallocatedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer's keys and values, written in place into room for the whole row.

    `DynamicLayer` copies all of them at every position; a static layer shows attention the empty room as well.
    """

    def __init__(self, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._length = length
        self._filled = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take room for the whole row."""
        self.device = key_states.device
        self._key_room = self._room_like(key_states)
        self._value_room = self._room_like(value_states)
        self.is_initialized = True

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Write what is new and return a view of all there is."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._filled + key_states.shape[-2]
        self._key_room[:, :, self._filled : end] = key_states
        self._value_room[:, :, self._filled : end] = value_states
        self._filled = end
        self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return how many positions are filled."""
        return self._filled

    def _room_like(self, states: Tensor) -> Tensor:
        batch, heads, _, size = states.shape
        return states.new_empty(batch, heads, self._length, size)
