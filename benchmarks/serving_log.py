"""What the log costs, how fast it is searched, what a kill leaves of an answer, and a run that is replayed."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time

import sqlalchemy as sa

from benchmarks.calls_filling import fill
from benchmarks.timing import scratch
from mindset.calls.call import Asked, NewNode, Outcome, Piece, Usage
from mindset.calls.checking import check
from mindset.calls.listing import Wanted, listed
from mindset.calls.log import CallLog
from mindset.calls.schema import CALLS
from mindset.calls.tree import Tree
from mindset.database.engine import reading

__all__ = ["killed", "logging_seconds", "replayed", "search_seconds"]

ANSWER_TOKENS = 64
SEARCHES = ("the", "water light", '"of the"', "nothing -every", "begin*")

SAY = """
import asyncio, sys
from mindset.calls.runs import run
from mindset.llm.opening import open_client
async def main():
    async with open_client(sys.argv[1]) as client:
        for number in range(int(sys.argv[2])):
            answer = await client.chat(f"Say something about the number {number}.", max_tokens=12, seed=number,
                                       temperature=1.0)
            print(answer.text, answer.usage, flush=True)
    print("torch" in sys.modules, file=sys.stderr)
with run("fifty"):
    asyncio.run(main())
"""
TALK = """
import asyncio, sys
from mindset.llm.opening import open_client
async def main():
    async with open_client("smollm2") as client:
        from mindset.llm.request import Options, Request
        whole = await client.chat("Hello", max_tokens=4, temperature=0.0)
        print(whole.call_id, flush=True)
        request = Request(prompt="Once upon a time", options=Options(max_tokens=2000, temperature=0.0))
        async for event in client.complete(request):
            print(getattr(event, "text", ""), end="", flush=True)
asyncio.run(main())
"""


def logging_seconds(calls: int = 300) -> float:
    """What begin, four notes and finish of an answer of 64 pieces take; median."""
    taken = []
    with scratch() as folder:
        log = CallLog.open(f"sqlite:///{folder / 'calls.sqlite'}")
        for number in range(calls):
            asked = Asked(
                "complete", "smollm2", "local", (NewNode("prompt", {"text": f"Number {number} is " * 20}),)
            )
            pieces = [Piece(i / 40, {"event": "text", "text": f" word{i}"}) for i in range(ANSWER_TOKENS)]
            answer = NewNode(
                "message", {"role": "assistant", "parts": [{"type": "text", "text": "word " * 64}]}
            )
            began = time.perf_counter()
            call = log.begin(asked)
            for start in range(0, ANSWER_TOKENS, ANSWER_TOKENS // 4):
                log.note(call, pieces[start : start + ANSWER_TOKENS // 4])
            log.finish(call, Outcome("ok", (answer,), usage=Usage(80, ANSWER_TOKENS), finish_reason="stop"))
            taken.append(time.perf_counter() - began)
        log.close()
    return statistics.median(taken)


def search_seconds(rows: int) -> dict[str, float]:
    """By what is searched: the median seconds of a page of 20, among so many calls."""
    with scratch() as folder:
        log = CallLog.open(f"sqlite:///{folder / 'calls.sqlite'}")
        fill(log, rows)
        found = {}
        for text in SEARCHES:
            taken = []
            for _ in range(5):
                began = time.perf_counter()
                listed(log, Wanted(text=text))
                taken.append(time.perf_counter() - began)
            found[text] = statistics.median(taken)
        log.close()
    return found


def killed(times: int) -> dict[str, float]:
    """A process that is killed in the middle of its second answer: what the log holds of both, and of all before."""
    partial = failed = wrong = missing = unclean = 0
    acknowledged: list[int] = []
    with scratch() as folder:
        url = f"sqlite:///{folder / 'calls.sqlite'}"
        for number in range(times):
            call, said = _killed_once(url, after=3.0 + 0.4 * number)
            acknowledged.append(call)
            log = CallLog.open(url)  # as the next process does
            with reading(log.engine) as connection:
                last = connection.execute(sa.select(CALLS).order_by(CALLS.c.id.desc()).limit(1)).one()
                whole = sa.select(CALLS.c.id).where(CALLS.c.id.in_(acknowledged), CALLS.c.status == "ok")
                missing += len(acknowledged) - len(connection.execute(whole).all())
            kept = _text(Tree(log.engine), last.answered)
            failed += last.status == "failed"
            partial += bool(kept)
            wrong += not said.startswith(kept)
            unclean += bool(check(log).problems)
            log.close()
    return {
        "failed": failed / times,
        "with partial text": partial / times,
        "text that was not said": float(wrong),
        "acknowledged calls missing, or logs unclean": float(missing + unclean),
    }


def _text(tree: Tree, node: str | None) -> str:
    if node is None:
        return ""
    content = tree.get(node).content or {}
    return "".join(part.get("text", "") for part in content.get("parts", ()))


def _killed_once(url: str, after: float) -> tuple[int, str]:
    """The call that was told as done, and what was said of the next one."""
    environment = os.environ | {"MINDSET_CALLS": url, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-c", TALK], env=environment, stdout=subprocess.PIPE)
    if process.stdout is None:
        raise RuntimeError("a pipe was asked for")
    call = int(process.stdout.readline())
    said = process.stdout.read(1)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    said += process.stdout.read()
    process.wait()
    return call, said.decode(errors="ignore")


def replayed(model: str, calls: int) -> dict[str, float]:
    """A run, and the same command answered from the log: whether bytes are equal, and whether torch was loaded."""
    with scratch() as folder:
        script = folder / "say.py"
        script.write_text(SAY, encoding="utf-8")
        environment = os.environ | {"MINDSET_CALLS": f"sqlite:///{folder / 'calls.sqlite'}"}
        command = [sys.executable, str(script), model, str(calls)]
        first = _output(command, environment)
        again = [sys.executable, "-m", "mindset", "logs", "replay", "fifty", "--", *command]
        second = _output(again, environment)
    return {
        "bytes differ": float(first.stdout != second.stdout),
        "torch loaded": float(b"True" in second.stderr),
        "bytes": float(len(first.stdout)),
    }


def _output(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-2000:])
    return done
