"""A process that makes calls until it is killed, and says what was acknowledged."""

from __future__ import annotations

import sys

from mindset.calls.call import Asked, NewNode, Outcome, Piece
from mindset.calls.log import CallLog
from mindset.calls.runs import run


def said(role: str, text: str) -> NewNode:
    return NewNode("message", {"role": role, "parts": [{"type": "text", "text": text}]})


def main(url: str, name: str) -> None:
    log = CallLog.open(url)
    with run(name):
        for turn in range(1_000_000):
            call = log.begin(Asked("complete", "m", "script", (said("user", f"{name} {turn}"),)))
            tell(f"begun {call}")
            words = [f"word{turn}.{n} " for n in range(5)]
            for n, word in enumerate(words):
                log.note(call, [Piece(n / 4, {"event": "text", "text": word})])
                tell(f"noted {call} {word}")
            log.finish(call, Outcome("ok", (said("assistant", "".join(words)),)))
            tell(f"finished {call}")


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
