from __future__ import annotations

import asyncio

from mindset.calls.log import CallLog
from mindset.calls.threads import Threads
from mindset.llm.conversations import remembered
from mindset.llm.dialog import Dialog
from mindset.llm.scripted import ScriptedClient


def say(dialog: Dialog, text: str) -> None:
    async def heard() -> None:
        async with dialog.say(text) as turn:
            async for _ in turn:
                pass

    asyncio.run(heard())


def test_conversations_by_what_they_began_with(log: CallLog) -> None:
    assert remembered(log) == []
    client = ScriptedClient(lambda _: "yes", log=log)
    one, other = Dialog(log, client), Dialog(log, client)
    one.instruct("Be brief.")
    say(one, "first")
    say(other, "other")
    say(one, "more")
    one.back(2)
    say(one, "anew")
    Threads(log.engine).start("script")  # nothing was said
    told = [(found.branches, found.exchanges, found.question) for found in remembered(log)]
    assert told == [(2, 1, "anew"), (1, 1, "other")]
    assert len(remembered(log, 2)) == 1
