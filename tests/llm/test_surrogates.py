from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from llm.loopback import ask, sse, stream

from mindset.calls.log import CallLog
from mindset.llm.events import Finished, ReasoningPiece, TextPiece, ToolCallPiece, collect
from mindset.llm.surrogates import Whole, whole_text


def halves(text: str) -> list[str]:
    """Every UTF-16 unit as a text of its own."""
    told = text.encode("utf-16-le")
    return [told[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(told), 2)]


@given(st.text(max_size=12), st.text(max_size=12))
def test_letters_in_halves_become_whole(said: str, thought: str) -> None:
    pieces = [TextPiece(half) for half in halves(said)]
    thoughts = [ReasoningPiece(half) for half in halves(thought)]
    mixed = [piece for pair in zip(pieces, thoughts, strict=False) for piece in pair]
    rest = [*pieces[len(thoughts) :], *thoughts[len(pieces) :]]
    events = list(Whole().take([*mixed, *rest, Finished("stop")]))
    assert "".join(event.text for event in events if isinstance(event, TextPiece)) == said
    assert "".join(event.text for event in events if isinstance(event, ReasoningPiece)) == thought
    assert events[-1] == Finished("stop")


@given(st.lists(st.text(st.characters(categories=["Cs", "Lu"]), max_size=3), max_size=5))
def test_what_comes_out_can_be_written(texts: list[str]) -> None:
    told = [TextPiece(text) for text in texts] + [ToolCallPiece(0, "a", "b", text) for text in texts]
    answer = collect(Whole().take([*told, Finished("stop")]))
    assert answer.text == whole_text("".join(texts))
    assert "".join(call.arguments for call in answer.message.tool_calls) == whole_text("".join(texts))
    whole_text("".join(texts)).encode()


def test_a_server_that_counts_in_utf_16(log: CallLog) -> None:
    said = [{"choices": [{"delta": {"content": half}}]} for half in halves("so 😀!")]
    logprobs = {"content": [{"token": "\ud83d", "logprob": float("-inf"), "top_logprobs": []}]}
    last = {"choices": [{"delta": {"content": "\ud83d"}, "logprobs": logprobs, "finish_reason": "stop"}]}
    events, _ = ask(log, stream(sse(*said, last, "[DONE]")))
    assert "".join(event.text for event in events if isinstance(event, TextPiece)) == "so 😀!\ufffd"
    assert [token.logprob for event in events if isinstance(event, TextPiece) for token in event.tokens] == [
        -9999.0
    ]
    assert log.call(1).outcome.status == "ok"
