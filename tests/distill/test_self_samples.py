from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mindset.distill import self_samples as module
from mindset.distill.document_starts import DocumentMix, DocumentStarts, usual_mix
from mindset.distill.self_samples import SampleSettings, SelfSamples, weights_digest
from mindset.errors import RunMismatchError, UsageError

SMALL = SampleSettings(length=16, batch=3)
ROWS_A_BATCH = 6  # windows of 8 in 3 rows of 16


def samples(
    teacher: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    cache: Path,
    settings_: SampleSettings = SMALL,
    limit_tokens: int | None = None,
) -> SelfSamples:
    return SelfSamples(teacher, tokenizer, settings_, seq_len=8, cache=cache, limit_tokens=limit_tokens)


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "draw_rows", lambda *_, **__: pytest.fail("drawn again"))


def test_fresh_windows_come_as_long_as_they_are_asked_for(
    tmp_path: Path, teacher: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    stream = samples(teacher, tokenizer, tmp_path)
    rows = stream.take(3 * ROWS_A_BATCH + 1)
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert len(list(tmp_path.rglob("batch-*.npy"))) == 4
    assert (stream.n_tokens, stream.tokens_seen, stream.passes) == (None, rows.size, 1.0)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(calls=st.lists(st.integers(0, 9), min_size=1, max_size=4), limit=st.sampled_from([None, 48, 100]))
def test_however_the_calls_are_split_the_rows_are_the_same(
    calls: list[int],
    limit: int | None,
    tmp_path: Path,
    teacher: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    at_once = samples(teacher, tokenizer, tmp_path / "one", limit_tokens=limit).take(sum(calls))
    split, position = [], 0
    for n_rows in calls:
        stream = samples(teacher, tokenizer, tmp_path / "other", limit_tokens=limit)
        stream.restore({"position": position})
        split.append(stream.take(n_rows))
        position = stream.state()["position"]
    np.testing.assert_array_equal(np.concatenate(split), at_once)


def test_a_later_run_reads_what_an_earlier_one_drew(
    tmp_path: Path,
    teacher: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    request: pytest.FixtureRequest,
) -> None:
    rows = samples(teacher, tokenizer, tmp_path).take(2 * ROWS_A_BATCH)
    request.getfixturevalue("no_drawing")
    np.testing.assert_array_equal(
        samples(copy.deepcopy(teacher), tokenizer, tmp_path).take(2 * ROWS_A_BATCH), rows
    )


def test_a_lost_or_damaged_file_is_drawn_again_the_same(
    tmp_path: Path, teacher: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = samples(teacher, tokenizer, tmp_path).take(2 * ROWS_A_BATCH)
    first, second = sorted(tmp_path.rglob("batch-*.npy"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-3])
    np.testing.assert_array_equal(samples(teacher, tokenizer, tmp_path).take(2 * ROWS_A_BATCH), rows)


def test_another_teacher_seed_or_mix_has_its_own_folder(
    tmp_path: Path, teacher: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        other.lm_head.weight[5, 0] += 1e-3
    variants = [
        (teacher, SMALL),
        (other, SMALL),
        (teacher, SampleSettings(length=16, batch=3, seed=1)),
        (teacher, SampleSettings(length=16, batch=3, mix=DocumentMix(word=1))),
    ]
    rows = [samples(model, tokenizer, tmp_path, settings_).take(1) for model, settings_ in variants]
    folders = list((tmp_path / "self").iterdir())
    assert len(folders) == len(variants) == len({row.tobytes() for row in rows})
    saved = [json.loads((folder / "settings.json").read_text())["settings"] for folder in folders]
    assert sorted(one["seed"] for one in saved) == [0, 0, 0, 1]


def test_with_a_limit_they_go_round_in_another_order(
    tmp_path: Path, teacher: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    stream = samples(teacher, tokenizer, tmp_path, limit_tokens=100)
    first, second = stream.take(2 * ROWS_A_BATCH), stream.take(2 * ROWS_A_BATCH)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.unique(first, axis=0), np.unique(second, axis=0))
    assert (stream.n_tokens, stream.distinct_tokens, stream.passes) == (96, 96, 2.0)
    assert len(list(tmp_path.rglob("batch-*.npy"))) == 2


def test_drawing_ahead_leaves_nothing_to_draw(
    tmp_path: Path,
    teacher: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    request: pytest.FixtureRequest,
) -> None:
    told: list[int] = []
    stream = SelfSamples(teacher, tokenizer, SMALL, seq_len=8, cache=tmp_path, on_drawn=told.append)
    assert stream.prepare(50) == 96
    assert sum(told) == 2 * 3 * 15  # a row's first token is given
    assert stream.prepare(96) == 0
    request.getfixturevalue("no_drawing")
    assert stream.take(2 * ROWS_A_BATCH).shape == (12, 8)


def test_windows_must_divide_rows(
    tmp_path: Path, teacher: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(UsageError, match="multiple"):
        SelfSamples(teacher, tokenizer, SMALL, seq_len=6, cache=tmp_path)
    with pytest.raises(RunMismatchError):
        samples(teacher, tokenizer, tmp_path).restore({"position": -1})


def test_a_teacher_is_named_by_its_weights_and_its_configuration(teacher: LlamaForCausalLM) -> None:
    same, half, turned = (copy.deepcopy(teacher) for _ in range(3))
    turned.config.rms_norm_eps = 0.1
    same.config._name_or_path = "elsewhere"
    digests = [weights_digest(model) for model in (teacher, same, half.bfloat16(), turned)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_chat_model_is_made_to_talk_about_many_things(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    starts = DocumentStarts(chat_tokenizer, usual_mix(chat_tokenizer))
    rng = random.Random(0)  # noqa: S311
    drawn = [starts.draw(rng) for _ in range(400)]
    assert all(drawn)
    texts = [chat_tokenizer.decode(ids) for ids in drawn]
    chats = [text for text in texts if text.startswith("<s>user\n") and text.endswith("</s><s>assistant\n")]
    assert 40 < len(chats) < 160
    assert len(set(texts)) > 250
    assert sum(ids == [chat_tokenizer.bos_token_id] for ids in drawn) > 40


def test_any_other_model_begins_with_its_first_token_or_any_word(tokenizer: PreTrainedTokenizerFast) -> None:
    starts = DocumentStarts(tokenizer, usual_mix(tokenizer))
    rng = random.Random(0)  # noqa: S311
    drawn = [starts.draw(rng) for _ in range(400)]
    begin = [tokenizer.bos_token_id]
    assert 120 < sum(ids == begin for ids in drawn) < 280
    assert len({tuple(ids) for ids in drawn}) > 10
    with pytest.raises(UsageError, match="no chat template"):
        DocumentStarts(tokenizer, DocumentMix(chat=1))
    for wrong in ({}, {"plain": -1.0, "word": 2.0}):
        with pytest.raises(UsageError):
            DocumentMix(**wrong)
