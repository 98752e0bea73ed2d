import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from mindset.errors import (
    MindsetError,
    MissingError,
    ModelFolderError,
    UnsupportedModelError,
    UsageError,
    WeightsError,
)
from mindset.graft import sources
from mindset.graft.sources import ModelName, load_teacher, load_tokenizer, parse_model, refuse_remote


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-layer Llama with a word-level tokenizer, as Hugging Face writes it."""
    folder = tmp_path_factory.mktemp("teacher") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32}
        model = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, num_key_value_heads=1, **sizes))
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))  # a word
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)  # a word
    return folder


@pytest.fixture
def damaged(teacher: Path, tmp_path: Path) -> Path:
    """A copy of the teacher that a test may break."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in teacher.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def _configure(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# ---- the grammar
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("smollm2", "packaged"),
        (" smollm2 ", "packaged"),
        ("HuggingFaceTB/SmolLM2-135M", "hub"),
        ("openai:gpt-5", "remote"),
        ("anthropic:claude-x", "remote"),
        ("http://localhost:8080/v1#tiny", "remote"),
        ("https://host/v1#org/name", "remote"),
        ("grpc://localhost:50051", "remote"),
        ("script:answers.py", "remote"),
        ("replay:run-7", "remote"),
    ],
)
def test_forms(text: str, kind: str) -> None:
    assert parse_model(text) == ModelName(kind, text.strip())


@pytest.mark.parametrize("text", ["sub", "./sub", "org/name", "org/name/"])
def test_an_existing_folder_wins(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / text).mkdir(parents=True)
    assert parse_model(text).kind == "folder"


def test_the_packaged_name_wins_over_a_folder_that_can_be_spelt_with_a_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert parse_model("smollm2").kind == "packaged"
    assert parse_model("./smollm2").kind == "folder"


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m").mkdir()
    assert parse_model("~/m") == ModelName("folder", str(tmp_path / "m"))


@pytest.mark.parametrize("text", ["./x", "/no/such", "../x", "~/no-such-x", "a/b/c", "x/"])
def test_a_missing_folder_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match=f"no such folder: {text}"):
        parse_model(text)


def test_a_missing_gguf_file_is_named() -> None:
    with pytest.raises(MissingError, match="no such file"):
        parse_model("dir/model.gguf")


def test_another_file_is_refused(teacher: Path) -> None:
    with pytest.raises(UsageError, match="is a file"):
        parse_model(str(teacher / "model.safetensors"))


@pytest.mark.parametrize("text", ["", "  ", "gpt9", "what is this", "-x", "openai", "ftp:x"])
def test_anything_else_is_told_the_grammar(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no MODEL: give smollm2, ./DIR"):
        parse_model(text)


@pytest.mark.parametrize(
    "text", ["openai:", "http://host/v1", "https://#x", "grpc://host", "grpc://h:p", "script:"]
)
def test_an_incomplete_remote_form_is_shown_whole(text: str) -> None:
    with pytest.raises(UsageError, match="is incomplete: the form is"):
        parse_model(text)


def test_a_folder_under_models_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDSET_HOME", str(tmp_path))
    (tmp_path / "models" / "mine").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"did you mean .*models.mine"):
        parse_model("mine")


def test_weights_of_a_remote_model_are_refused() -> None:
    with pytest.raises(UsageError, match="no access to its weights"):
        load_teacher("openai:gpt-5")
    assert refuse_remote(ModelName("hub", "a/b")).kind == "hub"


def test_parsing_loads_no_torch() -> None:
    code = "import sys; from mindset.graft import sources; sources.parse_model('smollm2')\n"
    code += "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers', 'gguf')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- a plain folder
def test_a_folder_loads_whole(teacher: Path) -> None:
    loaded = load_teacher(str(teacher))
    straight = LlamaForCausalLM.from_pretrained(teacher)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, straight(ids).logits)
    assert (loaded.name, loaded.path, loaded.notes) == ("tiny", teacher, ())
    assert loaded.file_bytes == (teacher / "model.safetensors").stat().st_size
    assert not loaded.model.training
    assert loaded.tokenizer("w3 w4").input_ids == [3, 4]


def test_dtype_and_device(teacher: Path) -> None:
    assert load_teacher(str(teacher)).model.dtype == torch.float32
    loaded = load_teacher(str(teacher), dtype=torch.bfloat16, device=torch.device("cpu"))
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("device", ["nosuch", "cuda:99"])
def test_a_device_that_is_not_there(teacher: Path, device: str) -> None:
    with pytest.raises(UsageError, match=f"cannot use the device '{device}'"):
        load_teacher(str(teacher), device=device)


def test_loading_leaves_the_random_state_and_the_terminal_alone(
    teacher: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_rng_state()
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    load_teacher(str(teacher))
    assert torch.equal(before, torch.get_rng_state())
    assert capfd.readouterr() == ("", "")
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == (
        verbosity,
        bars,
    )


def test_shards_are_read_and_counted(teacher: Path, tmp_path: Path) -> None:
    whole = load_teacher(str(teacher))
    whole.model.save_pretrained(tmp_path, max_shard_size="8KB")
    whole.tokenizer.save_pretrained(tmp_path)
    shards = list(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert load_teacher(str(tmp_path)).file_bytes == sum(shard.stat().st_size for shard in shards)
    shards[0].unlink()
    with pytest.raises(WeightsError, match=shards[0].name):
        load_teacher(str(tmp_path))


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 0.3, 0.9, -1])
def test_truncated_weights(damaged: Path, kept: float) -> None:
    weights = damaged / "model.safetensors"
    size = weights.stat().st_size
    os.truncate(weights, int(kept * size) if 0 < kept < 1 else int(kept) % size)
    with pytest.raises(WeightsError, match=r"cannot read the weights in .*model.safetensors"):
        load_teacher(str(damaged))


@pytest.mark.parametrize("content", [b"\x93garbage" * 100, b"\x02\0\0\0\0\0\0\0{]", b"\xff" * 64])
def test_garbage_weights(damaged: Path, content: bytes) -> None:
    (damaged / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot read the weights"):
        load_teacher(str(damaged))


def _drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _break_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.safetensors.index.json")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (_drop_weights, WeightsError, "has no weights: expected model.safetensors"),
        (_pickle_weights, WeightsError, "pickled weights"),
        (_break_index, WeightsError, "does not list the files"),
        (
            lambda folder: _configure(folder, num_hidden_layers=3),
            WeightsError,
            "lack 9 tensors .* 'model.layers.2",
        ),
        (lambda folder: _configure(folder, intermediate_size=32), WeightsError, "have not the shapes"),
        (lambda folder: _configure(folder, model_type="nosuch"), UnsupportedModelError, "'nosuch'"),
        (
            lambda folder: _configure(folder, model_type="t5"),
            UnsupportedModelError,
            "type 't5' cannot be opened",
        ),
        (lambda folder: _configure(folder, num_attention_heads=0), UnsupportedModelError, "cannot be opened"),
        (
            lambda folder: _configure(folder, num_attention_heads="x"),
            UnsupportedModelError,
            "cannot be opened",
        ),
        (
            lambda folder: _configure(folder, model_type="own", auto_map={"AutoConfig": "a.B"}),
            UnsupportedModelError,
            "type 'own' cannot be opened",
        ),
        (
            lambda folder: (folder / "config.json").unlink(),
            ModelFolderError,
            "is no model: it has no config.json",
        ),
        (
            lambda folder: (folder / "config.json").write_text("{"),
            ModelFolderError,
            "config.json cannot be read",
        ),
        (lambda folder: (folder / "config.json").write_text("[]"), ModelFolderError, "names no model_type"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff"), ModelFolderError, "cannot be read"),
        (lambda folder: (folder / "tokenizer.json").unlink(), ModelFolderError, "has no tokenizer: one of"),
        (
            lambda folder: (folder / "tokenizer.json").write_text('{"a"'),
            ModelFolderError,
            "cannot read the tokenizer",
        ),
        (
            lambda folder: (folder / "tokenizer.json").write_text("{}"),
            ModelFolderError,
            "cannot read the tokenizer",
        ),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(
    damaged: Path,
    damage: Callable[[Path], object],
    error: type[MindsetError],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    damage(damaged)
    with pytest.raises(error, match=message) as raised:
        load_teacher(str(damaged))
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_weights_without_a_place_are_noted(damaged: Path) -> None:
    _configure(damaged, num_hidden_layers=1)
    (note,) = load_teacher(str(damaged)).notes
    assert note.startswith("9 tensors of the weights file have no place in the model, first 'model.layers.1.")


def test_load_tokenizer_needs_no_weights(damaged: Path) -> None:
    _drop_weights(damaged)
    assert load_tokenizer(damaged)("w1").input_ids == [1]


def test_the_origin_beside_the_weights_is_told(damaged: Path) -> None:
    (damaged / "source.json").write_text(json.dumps({"note": "from a 4-bit file", "file_bytes": 7}))
    loaded = load_teacher(str(damaged))
    assert (loaded.notes, loaded.file_bytes) == (("from a 4-bit file",), 7)


# ---- the hub
def test_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingError, match="cannot get no-such-org/no-such-model from the Hugging Face hub"):
        load_teacher("no-such-org/no-such-model")


def test_a_hub_model_is_read_from_its_cached_folder(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_fetch_from_hub", lambda name: teacher)
    loaded = load_teacher("org/tiny")
    assert (loaded.name, loaded.path) == ("org/tiny", None)


# ---- trained teachers
@pytest.mark.parametrize("name", ["stories-260k", "tinystories-656k"])
def test_a_trained_teacher_tells_a_story(shared_data: Path, name: str) -> None:
    loaded = load_teacher(str(shared_data / "teachers" / name))
    story = "Once upon a time, there was a little girl named Lily. She loved to play."
    ids = loaded.tokenizer(story, return_tensors="pt").input_ids
    with torch.no_grad():
        nats = loaded.model(ids, labels=ids).loss * (ids.shape[1] - 1)
    assert nats / math.log(2) / len(story) < 1.3
    assert loaded.notes == ()
