"""A call whose answer comes in one piece: vectors, tokens, a text, the inside of a pass."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from mindset.calls.canonical import Json
from mindset.llm.events import Retried
from mindset.llm.patience import Patience
from mindset.llm.recorder import Recorder

__all__ = ["single"]


async def single(
    source: AsyncGenerator[Any, None],
    patience: Patience,
    recorder: Recorder,
    told: Callable[[object], Json],
) -> Any:
    """The one result that `source` gives, after the row of the log has it, as `told` writes it."""
    found: Any = None
    try:
        await patience.wait(recorder.begin)
        async with aclosing(source) as items:
            async for item in items:
                if isinstance(item, Retried):
                    recorder.add(item)
                else:
                    found = item
        await recorder.finish(
            "ok",
            result=told(found),
            usage=getattr(found, "usage", None),
            model=getattr(found, "model", None),
            content_hash=getattr(found, "content_hash", None),
        )
    except BaseException as error:
        await recorder.fail(error)
        raise
    return found
