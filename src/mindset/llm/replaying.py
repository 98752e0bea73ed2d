"""Recorded runs in the models' place: a client for one of them, and a block in which one answers for all clients.

    open_client("replay:RUN")            # answers whatever RUN asked, whichever model it asked
    with replaying("RUN"): ...           # every client of the block answers from RUN; so does MINDSET_REPLAY=RUN

See `mindset.llm.player` for what a replay promises.
"""

from __future__ import annotations

from dataclasses import fields
from typing import ClassVar

from mindset.calls.log import CallLog
from mindset.llm.budget import Budget
from mindset.llm.capabilities import Capabilities
from mindset.llm.client import Client
from mindset.llm.player import Player, replaying
from mindset.llm.policy import Policy

__all__ = ["ReplayClient", "StandIn", "replaying"]


class ReplayClient(Client):
    """A model that says again what was said in a recorded run."""

    kind: ClassVar[str] = "replay"
    remote: ClassVar[bool] = False
    real: ClassVar[bool] = False

    def __init__(
        self,
        run: str,
        *,
        policy: Policy | None = None,
        log: CallLog | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`run` by its id or name; it is read from `log`, and the calls made now are written there too."""
        super().__init__(f"replay:{run}", policy=policy, log=log, budget=budget)
        self._player = Player(run, self._log, any_model=True)

    @property
    def capabilities(self) -> Capabilities:
        """All: what was not recorded is refused when it is asked for."""
        return Capabilities(**{field.name: True for field in fields(Capabilities)})


class StandIn(Client):
    """In a replay, the place of a model that would be computed here: nothing of it, nor torch, is loaded."""

    kind: ClassVar[str] = "local"
    remote: ClassVar[bool] = False

    @property
    def capabilities(self) -> Capabilities:
        """All: the run answers, or refuses."""
        return Capabilities(**{field.name: True for field in fields(Capabilities)})
