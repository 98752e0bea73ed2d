"""A client that says back what it was told, so that an answer shows whose it is; with an inside that can be looked at.

For the fuzz and the load of the servers, and for their tests.
"""

from __future__ import annotations

import json

import numpy as np

from mindset.calls.call import Usage
from mindset.calls.log import CallLog
from mindset.errors import DataError
from mindset.llm.capabilities import Capabilities
from mindset.llm.events import Forward, Read
from mindset.llm.messages import ToolCall
from mindset.llm.policy import Policy
from mindset.llm.request import ForwardRequest, Request
from mindset.llm.scripted import Line, ScriptedClient

__all__ = ["EchoClient"]

N_LAYERS, N_HEADS, D_MODEL, VOCAB = 2, 2, 8, 256


class EchoClient(ScriptedClient):
    """Says `You said: TEXT`; calls the first tool it is told of where it must; its tokens are bytes."""

    def __init__(
        self,
        *,
        model: str = "echo",
        pace: float = 0.0,
        delay: float = 0.0,
        capabilities: Capabilities | None = None,
        log: CallLog | None = None,
    ) -> None:
        """`pace` and `delay`: seconds between words, and before the first."""
        can = capabilities or Capabilities(**dict.fromkeys(Capabilities.__dataclass_fields__, True))
        super().__init__(self._echo, model=model, capabilities=can, policy=Policy(attempts=1), log=log)
        self._pace, self._delay = pace, delay

    def _echo(self, request: Request) -> Line:
        self.requests.clear()  # a load of hours keeps none
        text = request.prompt if request.prompt is not None else request.messages[-1].text
        forced = request.tool_choice not in (None, "none", "auto")
        if request.tools and forced:
            call = ToolCall("call_1", request.tools[0].name, json.dumps({"text": text}))
            return Line(tool_calls=(call,), pace=self._pace, delay=self._delay)
        return Line(f"You said: {text}", pace=self._pace, delay=self._delay)

    async def _decode(self, ids: object) -> str:
        numbers = [int(number) for number in ids]  # type: ignore[attr-defined]
        if any(not 0 <= number < VOCAB for number in numbers):
            raise DataError(f"tokens are bytes, 0 to {VOCAB - 1}")
        return bytes(numbers).decode(errors="replace")

    async def _content_hash(self) -> str | None:
        return "e" * 40

    async def _forward(self, request: ForwardRequest) -> Forward:
        ids = tuple((request.prompt or "").encode()) if request.ids is None else request.ids
        if any(not 0 <= number < VOCAB for number in ids):
            raise DataError(f"tokens are bytes, 0 to {VOCAB - 1}")
        rng = np.random.default_rng(list(ids))
        kept = slice(-1, None) if request.last else slice(None)

        def some(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(np.float32)

        logits, hidden = some(len(ids), VOCAB), some(N_LAYERS + 1, len(ids), D_MODEL)
        attention = some(N_LAYERS, N_HEADS, len(ids), len(ids))
        reads = tuple((Read(0, number, 0.5), Read(1, 7, -0.25, "facts")) for number in ids)
        return Forward(
            ids,
            logits[kept] if request.logits else None,
            hidden[:, kept] if request.hidden_states else None,
            attention[:, :, kept] if request.attention else None,
            () if request.reads is None else reads[kept],
            self.model,
            "e" * 40,
            Usage(len(ids)),
        )
