"""The compiled reading from files against torch's steps over the same files and lists."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from graft.tiny import CONFIGS, D_MODEL, tiny_tokenizer, tokens

from mindset.errors import FormatError
from mindset.graft import file_token, folder
from mindset.graft.bank import MirrorBank
from mindset.graft.bounded import Bounded
from mindset.graft.convert import build_student
from mindset.graft.indexing import activation_in_numpy, recorded_queries
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.store.entries import QueryMoments
from mindset.store.index_choice import Choice, Point, Wanted, highest
from mindset.store.search import ShardSearch
from mindset.store.shard_index import IndexPlace, ShardIndex
from mindset.store.slab_store import SlabStore

pytest.importorskip("numba", reason="the extra `fast` is not installed")
pytest.importorskip("faiss", reason="needs faiss, the extra `ann`")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is resident")

MB, SLOTS, K = 1 << 20, 300, 6


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model with gates, and one with biases, without an index."""
    return {family: _save(family, tmp_path_factory.mktemp(family) / "m") for family in ("llama", "gpt2")}


def _save(family: str, path: Path) -> Path:
    config = CONFIGS[family]()
    setattr(config, "n_inner" if family == "gpt2" else "intermediate_size", SLOTS)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = hf.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
    plan = ConversionPlan(k=K, propose="score", candidates=20)
    folder.save(build_student(model.eval(), plan), path, tiny_tokenizer())
    return path


def _opened(path: Path, kind: str, probes: int, hot: int) -> torch.nn.Module:
    """The model with `--ram`, lists of that kind chosen for every shard."""
    model = folder.load(path)
    queries = recorded_queries(model, tokens(16, 40), list(banks(model)))
    shutil.rmtree(path / "memory/cache", ignore_errors=True)
    with SlabStore(path / "memory") as store:
        for info in store.shards():
            search = ShardSearch(store, info.layer, info.name)
            asked = queries[info.layer]
            moments = QueryMoments.of(asked)
            if kind == "keys":
                index = ShardIndex.of_keys(search, moments, lists=30)
            else:
                activation = activation_in_numpy(banks(model)[info.layer].shards[info.name].activation)
                index = ShardIndex.of_queries(
                    search, moments, asked, highest(search, asked, 12, moments, activation)
                )
            index.heat(np.arange(7, 7 + hot))
            place = IndexPlace.of(store.folder, info.layer, info.name, store.memory.generation)
            index.save(place)
            best = Point(kind, hot, probes, 1.0, 4.0)
            Choice(info.layer, info.name, SLOTS, "ivf", "a test", best, Wanted(), 256, 1.0, (best,)).save(
                place
            )
    return folder.load(path, ram=MB)


def _both(model: torch.nn.Module, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What each bank says by the loops, and by torch's steps."""
    out = []
    for bank in banks(model).values():
        assert isinstance(bank, MirrorBank)
        reader = bank.reader.__self__  # type: ignore[union-attr]
        with torch.no_grad():
            compiled = file_token.FileTokenReader().read(bank, reader.files, x)
            assert compiled is not None
            out.append((compiled, torch.cat([bank.read_gathered(row) for row in x.split(1)])))
    return out


def _x(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, D_MODEL, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("hot", [0, 9])
@pytest.mark.parametrize("kind", ["keys", "queries"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loops_say_what_torch_says(
    family: str, kind: str, hot: int, threads: int, saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_token, "_WORTH_A_TEAM", 0)
    for probes in (1, 4, 99):
        model = _opened(saved[family], kind, probes, hot)
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(threads)
            for compiled, plain in _both(model, _x(24)):
                torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
                assert compiled.abs().amax(dim=-1).min() > 0
        finally:
            torch.set_num_threads(before)


def test_a_model_reads_by_the_loops_and_says_the_same_without_them(
    saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _opened(saved["llama"], "keys", 5, 4)
    asked = []
    real = file_token.FileTokenReader.read

    def told(self: file_token.FileTokenReader, *given: object) -> torch.Tensor | None:
        asked.append(real(self, *given))  # type: ignore[arg-type]
        return asked[-1]

    monkeypatch.setattr(file_token.FileTokenReader, "read", told)
    with torch.no_grad():
        compiled = model(tokens()).logits
        assert len(asked) == len(banks(model))
        assert all(one is not None for one in asked)
        monkeypatch.setattr(file_token.FileTokenReader, "read", lambda *_: None)
        torch.testing.assert_close(model(tokens()).logits, compiled, rtol=1e-4, atol=1e-4)


def test_what_a_bank_is_told_anew_is_followed(saved: dict[str, Path]) -> None:
    """Another k and other lists after something was read."""
    model = _opened(saved["llama"], "keys", 3, 0)
    bank = banks(model)[0]
    reader: Bounded = bank.reader.__self__  # type: ignore[union-attr]
    x = _x(5)
    with torch.no_grad():
        for change in (lambda: bank.set_k(2), lambda: setattr(bank.named_by, "probes", 30)):
            before = reader.read(bank, x)
            change()
            after = reader.read(bank, x)
            assert not torch.allclose(before, after)
            plain = torch.cat([bank.read_gathered(row) for row in x.split(1)])
            torch.testing.assert_close(after, plain, rtol=1e-4, atol=1e-5)


def test_gradients_other_dtypes_and_counted_reads_are_left_to_torch(saved: dict[str, Path]) -> None:
    model = _opened(saved["llama"], "keys", 3, 0)
    bank = banks(model)[0]
    files, read = bank.reader.__self__.files, file_token.FileTokenReader().read  # type: ignore[union-attr]
    assert read(bank, files, _x(1)) is None  # a gradient may be wanted
    with torch.no_grad():
        assert read(bank, files, _x(1)) is not None
        assert read(bank, files, _x(1).double()) is None
        assert read(bank, {}, _x(1)) is None, "rows that lie in RAM"
        bank.reads = object()
        assert read(bank, files, _x(1)) is None


def test_several_callers_get_their_own_sums(saved: dict[str, Path]) -> None:
    model = _opened(saved["llama"], "keys", 4, 0)
    bank, read = banks(model)[0], file_token.FileTokenReader().read
    files = bank.reader.__self__.files  # type: ignore[union-attr]

    def asked(seed: int) -> torch.Tensor:
        with torch.no_grad():
            found = read(bank, files, _x(30, seed))
        assert found is not None
        return found

    alone = [asked(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(asked, range(8)), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("cut", ["ivf", "key", "modulator", "value"])
def test_a_file_that_becomes_shorter_is_one_error(
    cut: str, threads: int, tmp_path: Path, saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_token, "_WORTH_A_TEAM", 0)
    path = Path(shutil.copytree(saved["llama"], tmp_path / "m"))
    model = _opened(path, "keys", 30, 0)
    bank = banks(model)[0]
    files, read = bank.reader.__self__.files, file_token.FileTokenReader().read  # type: ignore[union-attr]
    found = [
        file for file in (path / "memory").rglob("layer-00*") if cut in file.name and file.suffix != ".json"
    ]
    assert len(found) == 1
    content = found[0].read_bytes()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with torch.no_grad():
            whole = read(bank, files, _x(3))
            os.truncate(found[0], 5000 if cut != "ivf" else len(content) // 3)
            with pytest.raises(FormatError, match="cut off"):
                read(bank, files, _x(20))
            found[0].write_bytes(content)
            again = read(bank, files, _x(3))
        assert whole is not None
        assert again is not None
        assert torch.equal(whole, again)
    finally:
        torch.set_num_threads(before)


def test_rows_that_no_slot_has_are_one_error(tmp_path: Path, saved: dict[str, Path]) -> None:
    """An index file overwritten after it was opened must not make the loops read beyond the memory."""
    path = Path(shutil.copytree(saved["llama"], tmp_path / "m"))
    model = _opened(path, "keys", 30, 0)
    bank = banks(model)[0]
    lists = bank.named_by.index.ivf  # type: ignore[union-attr]
    (file,) = (path / "memory/cache").glob("layer-00*.ivf")
    with file.open("r+b") as opened:
        opened.seek(lists.file.start_of("rows"))
        opened.write(np.full(SLOTS, 10**9).tobytes())
    files = bank.reader.__self__.files  # type: ignore[union-attr]
    with torch.no_grad(), pytest.raises(FormatError, match="was replaced"):
        file_token.FileTokenReader().read(bank, files, _x(1))
