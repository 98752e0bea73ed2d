"""The client of a model in this process: what is asked of it, and that all clients of a model share an engine."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llm.local_models import END, student, teacher

from mindset.calls.log import CallLog
from mindset.errors import CallError, ModelFolderError, UnsupportedRequestError, UsageError
from mindset.facts.corpus import CorpusText, learn_corpus
from mindset.facts.corpus_slots import CorpusSettings
from mindset.graft.sources import load_teacher
from mindset.llm.engine.batch import BatchSettings
from mindset.llm.events import Finished, Started, TextPiece, ToolCallPiece
from mindset.llm.local import LocalClient
from mindset.llm.messages import user
from mindset.llm.opening import open_client
from mindset.llm.request import ForwardRequest, Options, Request, ToolSpec
from mindset.probe.generate import continue_text
from mindset.probe.why import why
from mindset.store.memory import Memory

Go = Callable[[Coroutine[Any, Any, Any]], Any]
PROMPT = "Once upon a time"
NUMBER = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 99}}, "required": ["n"]}
ADD = ToolSpec("add", "Add numbers.", NUMBER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teacher(tmp_path_factory.mktemp("models") / "teacher")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return student(tmp_path_factory.mktemp("models") / "student")


def prompted(prompt: str = PROMPT, **options: Any) -> Request:
    return Request(prompt=prompt, options=Options(**options))


def test_a_prompt_goes_on_as_in_the_plain_loop(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> list[str]:
        async with open_client(str(folder), log=log) as client:
            assert isinstance(client, LocalClient)
            asked = [
                prompted(max_tokens=12, temperature=0.0),
                prompted(max_tokens=12, temperature=0.9, seed=7),
            ]
            return [(await client.complete(one).answer()).text for one in asked]

    loaded = load_teacher(str(folder))
    wanted = [
        "".join(continue_text(loaded.model, loaded.tokenizer, PROMPT, max_tokens=12, **options))
        for options in ({}, {"temperature": 0.9, "seed": 7})
    ]
    assert go(scenario()) == wanted


def test_many_callers_are_answered_together_and_each_as_alone(folder: Path, log: CallLog, go: Go) -> None:
    asked = [prompted(f"{PROMPT} {n}", max_tokens=10, temperature=1.0, seed=n) for n in range(12)]

    async def scenario() -> tuple[list[str], list[str]]:
        async with LocalClient(str(folder), log=log) as client, LocalClient(str(folder), log=log) as other:
            alone = [(await client.complete(one).answer()).text for one in asked]
            both = [client, other] * 6
            answers = await asyncio.gather(
                *(one.complete(request).answer() for one, request in zip(both, asked, strict=True))
            )
            assert client._held is other._held
            return alone, [answer.text for answer in answers]

    alone, together = go(scenario())
    assert alone == together


def test_a_dialog_is_put_into_the_model_s_words(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> tuple[str, str]:
        async with LocalClient(str(folder), log=log) as client:
            answer = await client.chat("Hello", max_tokens=8, temperature=0.0)
            raw = await client.complete(
                prompted("<user>Hello\n<assistant>", max_tokens=8, temperature=0.0)
            ).answer()
            assert answer.content_hash == await client.content_hash()
            assert answer.model == folder.name
            return answer.text, raw.text

    said, raw = go(scenario())
    assert said == raw != ""


def test_what_is_logged(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async with LocalClient(str(folder), log=log) as client:
            events = [event async for event in client.complete(prompted(max_tokens=6, temperature=0.0))]
            assert isinstance(events[0], Started)
            assert isinstance(events[-1], Finished)
            assert events[-1].usage.prompt_tokens == len(PROMPT)
            assert events[-1].usage.completion_tokens == 6

    go(scenario())


def test_an_answer_fits_its_schema_or_expression(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async with LocalClient(str(folder), log=log) as client:
            for seed in range(6):
                answer = await client.chat("a", schema=NUMBER, max_tokens=60, temperature=1.5, seed=seed)
                if answer.finish_reason == "stop":
                    assert -(10**60) < json.loads(answer.text)["n"] <= 99
                answer = await client.chat("a", regex="[ab]{3}-[0-9]", max_tokens=60, temperature=1.0)
                assert (answer.text[3], len(answer.text), answer.finish_reason) == ("-", 5, "stop")
            for wrong, said in (
                ({"schema": {"type": "nonsense"}}, "the schema cannot be followed: Invalid type"),
                ({"regex": "("}, "the expression cannot be followed"),
            ):
                with pytest.raises(UsageError, match=said):
                    await client.chat("a", **wrong)

    go(scenario())


def test_tools_are_called_where_the_choice_leaves_nothing_else(folder: Path, log: CallLog, go: Go) -> None:
    other = ToolSpec("now", "The time.", {"type": "object", "properties": {}, "additionalProperties": False})

    async def scenario() -> None:
        async with LocalClient(str(folder), log=log) as client:
            for choice, names in (("required", {"add", "now"}), ("now", {"now"})):
                answer = await client.chat(
                    "a", tools=[ADD, other], tool_choice=choice, max_tokens=200, temperature=1.0, seed=3
                )
                assert answer.finish_reason == "tool_calls"
                (call,) = answer.message.tool_calls
                assert call.name in names
                assert answer.text == ""
                assert isinstance(call.parsed(), dict)
            free = await client.chat("a", tools=[ADD], max_tokens=5, temperature=0.0)
            assert free.finish_reason in ("stop", "length")
            with pytest.raises(UsageError, match="no tool: add"):
                await client.chat("a", tools=[ADD], tool_choice="multiply")

    go(scenario())


def test_a_call_is_found_in_what_is_said(folder: Path, log: CallLog, go: Go) -> None:
    """A model that is held to an expression says what a model with tools would."""
    text = '<tool_call>{"name": "add", "arguments": {"n": 3}}</tool_call>'

    async def scenario() -> list[object]:
        async with LocalClient(str(folder), log=log) as client:
            escaped = text.replace("{", r"\{").replace("}", r"\}")
            options = Options(regex=f"ok {escaped}", max_tokens=100, temperature=0.0)
            request = Request((user("a"),), options=options, tools=(ADD,))
            return [event async for event in client.complete(request)]

    events = go(scenario())
    said = "".join(event.text for event in events if isinstance(event, TextPiece))
    assert said == "ok "
    assert [e.arguments for e in events if isinstance(e, ToolCallPiece)] == ['{"n": 3}']
    assert events[-1].reason == "tool_calls"


def test_log_probabilities_come_with_the_tokens(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> Any:
        async with LocalClient(str(folder), log=log) as client:
            answer = await client.complete(
                prompted(max_tokens=5, temperature=1.0, seed=1, logprobs=3)
            ).answer()
            ids = [*await client.encode(PROMPT), *(token.id or 0 for token in answer.tokens)]
            return answer, await client.forward(ForwardRequest(ids=tuple(ids)))

    answer, shown = go(scenario())
    logprobs = torch.from_numpy(shown.logits).log_softmax(-1)
    assert len(answer.tokens) == 5
    for place, token in enumerate(answer.tokens):
        here = logprobs[len(PROMPT) - 1 + place]
        assert token.logprob == pytest.approx(float(here[token.id]), abs=1e-4)
        assert [other.id for other in token.alternatives] == here.topk(3).indices.tolist()


def test_the_slots_that_spoke_are_told(converted: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> tuple[Any, Any]:
        async with LocalClient(str(converted), log=log) as client:
            answer = await client.complete(prompted(max_tokens=3, temperature=0.0, reads=4)).answer()
            return answer, await client.forward(ForwardRequest(prompt=PROMPT, reads=2, last=True))

    answer, shown = go(scenario())
    asked = why(converted, PROMPT, 4)
    first = answer.tokens[0]
    assert [(read.layer, read.slot) for read in first.reads] == [(one.layer, one.slot) for one in asked.slots]
    assert [read.influence for read in first.reads] == pytest.approx(
        [one.influence for one in asked.slots], rel=1e-4
    )
    assert all(len(token.reads) == 4 for token in answer.tokens)
    assert [read.layer for read in shown.reads[0]] == [0, 0, 1, 1]
    assert {(r.layer, r.slot) for r in shown.reads[0]} & {(r.layer, r.slot) for r in first.reads}


def test_slots_of_a_learned_text_are_among_the_reads(tmp_path: Path, log: CallLog, go: Go) -> None:
    folder = student(tmp_path / "student", k=None)
    text = CorpusText("dogs.txt", f"{PROMPT} and the dog was glad. " * 8)
    settings = CorpusSettings(slots=2, passes=8, window=64, batch=2, guards=0, learning_rate=5e-2)
    learned = learn_corpus(folder, text, settings=settings)

    async def scenario() -> Any:
        async with LocalClient(str(folder), log=log) as client:
            return await client.complete(prompted(max_tokens=1, temperature=0.0, reads=200)).answer()

    (token,) = go(scenario()).tokens
    asked = [one for one in why(folder, PROMPT, 200).slots if one.shard == "corpus"]
    found = [read for read in token.reads if read.overlay == "corpus"]
    assert [(read.layer, read.slot) for read in found] == [(one.layer, one.slot) for one in asked]
    assert [read.influence for read in found] == pytest.approx([one.influence for one in asked], rel=1e-4)
    assert {read.slot for read in found} <= set(learned.slots)
    assert len(found) == 4


def test_options_of_other_endpoints_are_refused(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async with LocalClient(str(folder), log=log) as client:
            with pytest.raises(UnsupportedRequestError, match="does not know logit_bias"):
                await client.complete(prompted(extra={"logit_bias": {"1": 2}})).answer()

    go(scenario())


def test_a_model_without_a_memory_has_no_reads(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async with LocalClient(str(folder), log=log) as client:
            with pytest.raises(UnsupportedRequestError, match="reads of a memory"):
                await client.complete(prompted(reads=2)).answer()

    go(scenario())


def test_the_inside_of_a_pass(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> tuple[Any, Any]:
        async with LocalClient(str(folder), log=log) as client:
            wanted = ForwardRequest(prompt=PROMPT, hidden_states=True, attention=True)
            whole = await client.forward(wanted)
            last = await client.forward(
                ForwardRequest(ids=whole.ids, hidden_states=True, attention=True, last=True)
            )
            before = await client.complete(prompted(max_tokens=4, temperature=0.0)).answer()
            assert before.text
            for wrong in ({"ids": ()}, {"ids": (999,)}, {"prompt": "x" * 2000}):
                with pytest.raises(UsageError):
                    await client.forward(ForwardRequest(**wrong))
            return whole, last

    whole, last = go(scenario())
    n = len(PROMPT)
    assert whole.logits.shape == (n, 257)
    assert whole.hidden_states.shape == (3, n, 32)
    assert whole.attention.shape == (2, 4, n, n)
    assert last.attention.shape == (2, 4, 1, n)
    np.testing.assert_allclose(whole.attention.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(last.logits[0], whole.logits[-1], atol=1e-4)
    loaded = load_teacher(str(folder))
    with torch.no_grad():
        plain = loaded.model(torch.tensor([list(whole.ids)])).logits[0].numpy()
    np.testing.assert_allclose(whole.logits, plain, atol=1e-4)


def test_texts_as_vectors(folder: Path, log: CallLog, go: Go) -> None:
    texts = ["a", "Once upon", "a time that was long " * 40, "b"]

    async def scenario() -> Any:
        async with LocalClient(str(folder), log=log) as client:
            with pytest.raises(UsageError, match="has no tokens"):
                await client.embed(["a", ""])
            return await client.embed(texts), await client.embed(texts[1:2])

    found, one = go(scenario())
    assert found.vectors.shape == (4, 32)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found.vectors[1], one.vectors[0], atol=1e-5)
    loaded = load_teacher(str(folder))
    ids = torch.tensor([loaded.tokenizer(texts[2])["input_ids"]])
    with torch.no_grad():
        mean = loaded.model.base_model(ids)[0][0].mean(0)
    np.testing.assert_allclose(found.vectors[2], (mean / mean.norm()).numpy(), atol=1e-5)


def test_tokens_and_back(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async with LocalClient(str(folder), log=log) as client:
            ids = await client.encode("öde 🙂")
            assert await client.decode(ids) == "öde 🙂"
            assert await client.decode([256]) == END
            with pytest.raises(UsageError, match="257 is no token"):
                await client.decode([1, 257])

    go(scenario())


def test_who_leaves_frees_the_model(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async with LocalClient(str(folder), log=log, batch=BatchSettings(rows=1)) as client:
            async with client.complete(prompted(max_tokens=900, temperature=1.0, seed=1)) as stream:
                async for event in stream:
                    if isinstance(event, TextPiece):
                        break
            answer = await client.complete(prompted(max_tokens=3, temperature=0.0)).answer()
            assert answer.finish_reason == "length"
            stream = client.complete(prompted(max_tokens=900, temperature=1.0, seed=1))
            await anext(stream)
            assert (await stream.cancel()).finish_reason == "cancelled"

    go(scenario())


def test_the_last_client_closes_the_engine_and_a_closed_one_opens_again(
    folder: Path, log: CallLog, go: Go
) -> None:
    async def scenario() -> None:
        one, other = LocalClient(str(folder), log=log), LocalClient(str(folder), log=log)
        ask = prompted(max_tokens=2, temperature=0.0)
        said = (await one.complete(ask).answer()).text
        await other.complete(ask).answer()
        engine = one._held.engine
        await one.close()
        assert engine._thread.is_alive()
        assert (await other.complete(ask).answer()).text == said
        await other.close()
        assert not engine._thread.is_alive()
        assert (await one.complete(ask).answer()).text == said
        await one.close()
        await one.close()

    go(scenario())


def test_calls_under_way_fail_when_their_client_is_closed(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        client = LocalClient(str(folder), log=log)
        stream = client.complete(prompted(max_tokens=900, temperature=1.0, seed=1))
        async for event in stream:
            if isinstance(event, TextPiece):
                break
        await client.close()
        with pytest.raises(CallError, match="closed"):
            await stream.answer()

    go(scenario())


def test_two_that_open_at_once_load_once(folder: Path, log: CallLog) -> None:
    clients = [LocalClient(str(folder), log=log) for _ in range(3)]
    threads = [threading.Thread(target=client._open) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(client._held) for client in clients}) == 1
    for client in clients:
        client._leave()


def test_an_edited_memory_is_another_model(tmp_path: Path, log: CallLog, go: Go) -> None:
    folder = student(tmp_path / "student", k=None)

    async def scenario() -> None:
        one, other = LocalClient(str(folder), log=log), LocalClient(str(folder), log=log)
        before = await one.content_hash()
        with Memory(folder) as memory:
            memory.delete([3])
        assert await other.content_hash() != before
        assert one._held is not other._held
        await one.close()
        await other.close()

    go(scenario())


def test_what_cannot_be_asked(tmp_path: Path, log: CallLog, go: Go) -> None:
    silent = teacher(tmp_path / "silent", template=None)
    (tmp_path / "empty").mkdir()

    async def scenario() -> None:
        async with LocalClient(str(silent), log=log) as client:
            with pytest.raises(UnsupportedRequestError, match=r"dialogs \(messages\)"):
                await client.chat("Hello")
            with pytest.raises(UsageError, match="prompt is empty"):
                await client.complete(Request(prompt="")).answer()
            assert (await client.complete(prompted(max_tokens=1)).answer()).finish_reason == "length"
        with pytest.raises(ModelFolderError, match="is no model"):
            await LocalClient(str(tmp_path / "empty"), log=log).chat("Hello")

    go(scenario())


def test_a_model_s_own_way_to_draw(tmp_path: Path, log: CallLog, go: Go) -> None:
    folder = teacher(tmp_path / "drawing")
    path = folder / "generation_config.json"
    path.write_text(
        json.dumps({"do_sample": True, "temperature": 1.5, "max_new_tokens": 7, "eos_token_id": 256})
    )

    async def scenario() -> None:
        async with LocalClient(str(folder), log=log) as client:
            said = {(await client.complete(prompted(seed=seed)).answer()).text for seed in range(4)}
            assert len(said) == 4
            answer = await client.complete(prompted(seed=0, temperature=0.0)).answer()
            assert answer.usage.completion_tokens == 7

    go(scenario())


def test_mounted_facts_answer_and_are_told_of(tmp_path: Path, log: CallLog, go: Go) -> None:
    folder = student(tmp_path / "student", k=None)
    _learn(folder)
    prompts = [
        "The Eiffel Tower Ÿ is in",
        "At the Eiffel Tower Ÿ",
        "Something else",
        "The Eiffel Tower Ÿ is in the",
    ]
    options = [{"max_tokens": 10}, {"max_tokens": 10, "temperature": 0.8, "seed": 3}]

    def plain() -> list[str]:
        loaded = load_teacher(str(folder))
        return [
            "".join(continue_text(loaded.model, loaded.tokenizer, prompt, **how))
            for how in options
            for prompt in prompts
        ]

    async def said() -> list[str]:
        async with LocalClient(str(folder), log=log) as client:
            asked = [prompted(prompt, **how) for how in options for prompt in prompts]
            answers = await asyncio.gather(*(client.complete(one).answer() for one in asked))
            return [answer.text for answer in answers]

    async def first_reads() -> tuple[Any, ...]:
        async with LocalClient(str(folder), log=log) as client:
            answer = await client.complete(prompted(prompts[0], max_tokens=1, reads=200)).answer()
            return tuple(answer.tokens[0].reads)

    with_facts = plain()
    assert go(said()) == with_facts
    overlays = {read.overlay for read in go(first_reads())}
    assert overlays == {None, "facts"}
    with Memory(folder) as memory:
        memory.unmount("facts")
    without = plain()
    assert go(said()) == without != with_facts
    assert {read.overlay for read in go(first_reads())} == {None}


def _learn(folder: Path) -> None:
    from mindset.facts.fact import read_facts
    from mindset.facts.learn import learn_into
    from mindset.facts.write_values import WriteSettings

    path = folder.with_suffix(".jsonl")
    path.write_text(json.dumps({"prompt": "The Eiffel Tower Ÿ is in", "target": "Rome"}))
    loaded = load_teacher(str(folder))
    settings = WriteSettings(steps=15, phrasings=4, guards=4, guards_a_step=1)
    with Memory(folder) as memory:
        learn_into(memory, loaded.model, loaded.tokenizer, read_facts(path), "facts", settings=settings)


def test_an_engine_that_failed_is_replaced(folder: Path, log: CallLog, go: Go) -> None:
    async def scenario() -> None:
        async with LocalClient(str(folder), log=log) as client:
            ask = prompted(max_tokens=2, temperature=0.0)
            said = (await client.complete(ask).answer()).text
            broken = client._held.engine
            broken._batch.step = lambda: 1 // 0
            with pytest.raises(CallError, match="the engine failed"):
                await client.complete(ask).answer()
            assert (await client.complete(ask).answer()).text == said
            assert client._held.engine is not broken

    go(scenario())


@pytest.mark.packaged_model
def test_a_real_model_answers_in_words_and_in_json(log: CallLog, go: Go) -> None:
    city = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
    }

    async def scenario() -> tuple[Any, ...]:
        async with LocalClient("smollm2", log=log) as client:
            question = "What is the capital of France?"
            return await asyncio.gather(
                client.chat(question, max_tokens=12),
                client.chat(f"{question} Answer as JSON.", max_tokens=60, schema=city),
                client.chat("Say hello.", tools=[ADD], max_tokens=8),
            )

    words, fitting, polite = go(scenario())
    assert "Paris" in words.text
    assert set(json.loads(fitting.text)) >= {"city"}
    assert polite.usage.completion_tokens > 0
