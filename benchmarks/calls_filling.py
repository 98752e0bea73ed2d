"""Fill a log with calls that nobody made: dialogs of common words, in the shape that clients write them.

    python -m benchmarks.calls_filling sqlite:///DIR/calls.sqlite 100000

Rows are put past the log's own interface, many to a transaction, with the same tables and hashes: `verify` holds.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from mindset.calls import rows
from mindset.calls.call import Asked, NewNode, Outcome, Piece, Usage
from mindset.calls.log import CallLog
from mindset.calls.pieces import packed, written
from mindset.calls.prices import FREE
from mindset.calls.runs import Run
from mindset.calls.schema import CALLS
from mindset.calls.words import new_words
from mindset.database.engine import writing

__all__ = ["fill"]

BATCH = 500
"""Calls in a transaction."""
COMMON, RARE = 2_000, 60_000
"""Different words; one in twenty is drawn from the rare ones."""


def fill(log: CallLog, calls: int, *, seed: int = 0, words: int = 40) -> None:
    """Add calls, the answer of each about `words` words; every third one goes on with the dialog before it."""
    draw = random.Random(seed)  # noqa: S311  words, not secrets
    made = _calls(draw, calls, words)
    for first in range(0, calls, BATCH):
        run = Run(f"filled {first // (10 * BATCH)}")
        with writing(log.engine) as connection:
            process = rows.enter_process(connection, log.redactor)
            rows.enter_run(connection, run, process)
            for place in range(first, min(first + BATCH, calls)):
                _put(connection, *next(made), run.id, process, place)


def _put(
    connection: sa.Connection, asked: Asked, outcome: Outcome, pieces: list[Piece], run: str, process: int, place: int
) -> None:  # fmt: skip
    call, tip = rows.begin(connection, asked, run, process)
    rows.add_pieces(connection, call, 0, [packed(written(pieces))])
    rows.end(connection, call, tip, new_words(asked.nodes), outcome, FREE)
    began = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=place)
    when = began.isoformat(timespec="microseconds")
    connection.execute(sa.update(CALLS).where(CALLS.c.id == call).values(began=when))


def _calls(draw: random.Random, count: int, words: int) -> Iterator[tuple[Asked, Outcome, list[Piece]]]:
    dialog: list[NewNode] = []
    for place in range(count):
        if place % 3 == 0:
            dialog = []
        dialog.append(_message("user", _text(draw, 12)))
        said = _text(draw, draw.randint(words // 2, words * 3 // 2)).split()
        answer = _message("assistant", " ".join(said))
        model = draw.choice(["smollm2", "smollm2", "smollm2", "openai:gpt-4o-mini", "./smol"])
        asked = Asked("complete", model, "local", tuple(dialog), {"max_tokens": 100, "seed": place})
        failed = draw.random() < 0.01
        outcome = Outcome(
            "failed" if failed else "ok",
            (answer,),
            usage=Usage(12 * len(dialog), len(said)),
            finish_reason="error" if failed else "stop",
            error="the endpoint broke off" if failed else None,
            answered_by=model,
            seconds=len(said) * 0.02,
            first_token=0.1,
            local_seconds=len(said) * 0.02,
        )
        pieces = [Piece(0.1 + n * 0.02, {"event": "text", "text": f"{word} "}) for n, word in enumerate(said)]
        dialog.append(answer)
        yield asked, outcome, pieces


def _message(role: str, text: str) -> NewNode:
    return NewNode("message", {"role": role, "parts": [{"type": "text", "text": text}]})


def _text(draw: random.Random, words: int) -> str:
    return " ".join(_word(draw) for _ in range(words))


def _word(draw: random.Random) -> str:
    """Common words as often as in a language: the n-th one about 1/n as often as the first."""
    rare = draw.random() < 0.05
    number = COMMON + draw.randrange(RARE) if rare else int(COMMON ** draw.random()) - 1
    syllables = []
    while number >= 0:
        syllables.append("bdfgklmnrtvz"[number % 12] + "aeiou"[number // 12 % 5])
        number = number // 60 - 1
    return "".join(syllables)


if __name__ == "__main__":
    fill(CallLog.open(sys.argv[1]), int(sys.argv[2]))
