"""What a person asks of a conversion, checked before any weight is read.

`ConversionPlan` is the words of the command line as data. It knows no model: which layers exist, and whether k fits a
bank, is for `convert` to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from mindset.errors import UsageError
from mindset.graft.propose import ProposerSpec, parse_propose
from mindset.graft.skip import parse_skip

__all__ = ["BankKind", "ConversionPlan", "parse_layers"]

BankKind = Literal["mirror", "featural", "associative"]
Gradient = Literal["straight-through", "scores", "frozen"]
WEIGHTS = ("relu", "gelu", "silu", "distance", "softmax")


@dataclass(frozen=True)
class ConversionPlan:
    """How a model's feed-forward blocks become banks."""

    bank: BankKind = "mirror"
    """`mirror`: the block's own neurons; `featural`, `associative`: slots from a random start."""
    slots: int = 0
    """Slots per head of a featural or associative bank (0: as many as the block has neurons); with `mirror`, new slots
    beside the mirrored ones."""
    heads: int = 1
    """Heads of a featural or associative bank; a mirror bank has one."""
    k: int | None = None
    """Slots read for a token and head; None: all."""
    propose: str = "all"
    """`all`, `score` or `proxy:R`; mirror banks only."""
    candidates: int | None = None
    """Slots that are rescored exactly; None with `all`."""
    weight: str | None = None
    """How a new slot is weighted; None: beside a mirror as the block's own neurons are, else `relu`."""
    layers: str = "all"
    """`all`, or layers and ranges as in `0,3,5-9`."""
    skip: str = "none"
    """`none`, `affine` or `lowrank:R`."""
    gradient: Gradient = "straight-through"
    """What trains an associative bank's lookup: identity from the returned keys, the scores, or nothing."""
    seed: int = 0
    """Seed of every random start."""

    def __post_init__(self) -> None:
        if self.bank not in get_args(BankKind):
            raise UsageError(f"'{self.bank}' is no bank; allowed: {', '.join(get_args(BankKind))}")
        if self.slots < 0 or self.heads < 1 or (self.k is not None and self.k < 1):
            raise UsageError(f"slots = {self.slots}, heads = {self.heads}, k = {self.k}: counts start at 1")
        if self.gradient not in get_args(Gradient):
            raise UsageError(f"'{self.gradient}' is no gradient; allowed: {', '.join(get_args(Gradient))}")
        if self.weight is not None and self.weight not in WEIGHTS:
            raise UsageError(f"'{self.weight}' is no weighting; allowed: {', '.join(WEIGHTS)}")
        self._check_bank()
        parse_skip(self.skip)

    def _check_bank(self) -> None:
        spec = self.proposer
        if self.bank != "mirror":
            if spec.kind != "all":
                raise UsageError(f"a {self.bank} bank ranks its slots itself: leave --propose at all")
            return
        if self.heads != 1:
            raise UsageError(f"a mirror bank has one head, not {self.heads}")
        if self.weight in ("distance", "softmax"):
            raise UsageError(
                f"weighting by {self.weight} needs --bank featural; beside a mirror use relu, gelu, silu"
            )

    @property
    def proposer(self) -> ProposerSpec:
        """`propose` and `candidates`, parsed."""
        return parse_propose(self.propose, self.candidates)


def parse_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """`all`, or layers and ranges as in `0,3,5-9`, ascending and without repeats."""
    if text == "all":
        return tuple(range(n_layers))
    chosen: set[int] = set()
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", piece)
        if match is None:
            raise UsageError(f"'{text}' names no layers; write all, or as in 0,3,5-9")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= n_layers:
            raise UsageError(f"layers '{piece.strip()}': this model has layers 0 to {n_layers - 1}")
        chosen.update(range(first, last + 1))
    return tuple(sorted(chosen))
