"""The keys by which a subject is recognised: balls around what a block sees at the subject's last token.

Since a norm gives inputs one length, a ball in the metric of ordinary text is a half-space, `key . x + key_bias > 0`;
both are scaled so that the number is 1 at the middle and 0 at the border, which lies at `reach` of the way from the
middle of the subject to that of all text.

A subject that looks different in some places gets a second ball. No ball may hold anything of ordinary text: where one
would, its border is drawn nearer, and one that then no longer holds its own middle is left out. The same holds for
other names. What the subject shares with names of the same ending is taken out of the direction in
which it is looked for: `Garhwal district` is not told by `district`. Knows no facts and no slots.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mindset.facts.background import Background, RadiusKey

__all__ = ["NEAR", "REACH", "subject_keys"]

REACH = 0.3
"""Where a ball ends at most: share of the way from its middle to the mean of all text."""
NEAR = 0.18
"""Where it should end: names that nobody thought of (`Eland Mountains`) fall out, and hardly a mention does."""
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)
"""How much is taken out of a direction of what namesakes have too."""
_MOST_KEYS = 3
_MARGIN = 0.05
"""How far ordinary text stays from every ball."""


def subject_keys(
    inputs: Float[Tensor, "texts d_model"],
    background: Background,
    others: Float[Tensor, "names d_model"] | None = None,
    namesakes: Float[Tensor, "more d_model"] | None = None,
    reach: float = REACH,
) -> list[RadiusKey]:
    """Balls that hold what a block saw at a subject in several texts, and nothing of ordinary text and other names.

    Mostly one; none where the subject cannot be told from them. `namesakes` end as the subject does.
    """
    not_it = [background.seen, *(one.double().cpu() for one in (others, namesakes) if one is not None)]
    finder = _Finder(background, torch.cat(not_it), namesakes, reach)
    left, keys = inputs.double().cpu(), list[RadiusKey]()
    middle = left.median(dim=0).values if len(left) > 2 else None
    while len(left) and len(keys) < _MOST_KEYS:
        key = finder.ball(left[0] if middle is None else middle)
        outside = torch.ones(len(left), dtype=torch.bool) if key is None else key.margins(left) <= 0
        if key is not None and not outside.all():
            keys.append(key)
            left = left[outside]
        elif middle is None:  # this text cannot be told from others
            left = left[1:]
        middle = None
    return keys


class _Finder:
    """Balls around one subject."""

    def __init__(
        self,
        background: Background,
        not_it: Float[Tensor, "others d_model"],
        namesakes: Float[Tensor, "more d_model"] | None,
        reach: float,
    ) -> None:
        self.background, self.not_it, self.reach = background, not_it, reach
        self.ending = None
        if namesakes is not None and len(namesakes):
            self.ending = namesakes.double().cpu().mean(dim=0) - background.mean

    def ball(self, middle: Float[Tensor, " d_model"]) -> RadiusKey | None:
        """Around a middle, without anything that is not the subject; None if nothing is left of it.

        Of several directions, that from which everything else stays farthest.
        """
        away = middle - self.background.mean
        plain = self.background.precision @ away
        found: list[tuple[float, RadiusKey]] = []
        for share in (0.0,) if self.ending is None else _SHARES:
            direction = plain
            if self.ending is not None and share:
                known = self.background.precision @ self.ending
                direction = plain - share * known * (known @ away) / (known @ self.ending)
            length = float(direction @ away)
            if length > 0:  # falls by 1 from the middle to the border
                ball = RadiusKey.through(direction / length / self.reach, middle, 1.0)
                found.append((float(ball.margins(self.not_it).max()) + _MARGIN, ball))
        if not found:
            return None
        nearest, ball = min(found, key=lambda one: one[0])
        if nearest >= 1:
            return None
        if nearest <= 0:
            return ball
        return RadiusKey.through(ball.key / (1 - nearest), middle, 1.0)  # its border where the nearest was
