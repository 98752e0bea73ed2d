"""An answer while it comes: an async iterator of events that can be collected, left and stopped at any time.

    async for event in client.complete(request): ...
    answer = await client.complete(request).answer()
    async with client.complete(request) as stream: ...        # left early: stopped at once

Nothing is asked before the first event is waited for. Invariant: a call that was begun is finished in the log before
its last event is handed out, or when the stream is left: by `break`, a cancelled task, `cancel()` or its disposal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType

from mindset.llm.events import Answer, Event, Finished, collect
from mindset.llm.patience import Patience, StoppedError
from mindset.llm.recorder import Recorder

__all__ = ["Stream"]


class Stream:
    """Events of one call, for one reader."""

    def __init__(self, source: AsyncGenerator[Event, None], patience: Patience, recorder: Recorder) -> None:
        """`source` is what answers; it ends with `Finished`."""
        self._patience, self._recorder = patience, recorder
        self._events = _recorded(source, patience, recorder)
        self._left: deque[Event] = deque()
        self._reading = False

    @property
    def call_id(self) -> int | None:
        """Its row in the log, once it has begun."""
        return self._recorder.call_id

    @property
    def events(self) -> tuple[Event, ...]:
        """All that came so far."""
        return tuple(self._recorder.events)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Event:
        if self._left:
            return self._left.popleft()
        self._reading = True
        try:
            return await anext(self._events)
        finally:
            self._reading = False

    async def answer(self) -> Answer:
        """Read to the end, and return all of it."""
        async for _ in self:
            pass
        return self.so_far()

    def so_far(self) -> Answer:
        """The answer as far as it has come; its reason is `cancelled` while the end is missing."""
        return collect(self._recorder.events, self.call_id)

    async def cancel(self) -> Answer:
        """Stop the model, keep what it said as `cancelled`, and return that; a reader's last event is `Finished`."""
        self._patience.stop()
        if self._reading:
            await self._recorder.over.wait()
        else:
            self._left.extend([event async for event in self._events])
        return self.so_far()

    async def aclose(self) -> None:
        """Leave the stream; the same as `cancel` where it is not at its end."""
        if self._reading:
            await self.cancel()
        else:
            await self._events.aclose()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()


async def _recorded(
    source: AsyncGenerator[Event, None], patience: Patience, recorder: Recorder
) -> AsyncGenerator[Event, None]:
    """Hand events out and into the log, and finish the row however this ends.

    Knows no `Stream`, so that one that is dropped is disposed of at once.
    """
    if patience.was_stopped():
        return
    try:
        await patience.wait(recorder.begin)
        async with aclosing(source) as events:
            async for event in events:
                recorder.add(event)
                if isinstance(event, Finished):
                    await recorder.end(event)
                yield event
                if patience.was_stopped() and not recorder.over.is_set():
                    raise StoppedError  # noqa: TRY301 - the same end as when a wait is stopped
    except StoppedError:
        last = Finished("cancelled")
        recorder.add(last)
        await recorder.finish("cancelled")
        yield last
    except BaseException as error:
        await recorder.fail(_reason(error))
        raise
    finally:
        recorder.over.set()


def _reason(error: BaseException) -> BaseException:
    """What ended it: that it was closed, where closing what it is made of failed in turn.

    A loop that ends closes all generators at once, so that one may be told to close while another is doing it.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, GeneratorExit):
            return found
        found = found.__context__
    return error
