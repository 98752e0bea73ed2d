"""What holds for every test: no network, a home of its own, one torch thread, executed shape annotations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Before anything imports a library that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import jaxtyping
import pytest

# Before the first import of mindset: every signature of it is checked at each call, shapes included.
jaxtyping.install_import_hook("mindset", "shape_check.checked")

pytest_plugins = ["databases", "serving"]

ROOT = Path(__file__).resolve().parent.parent
USERS_HOME = os.environ.get("MINDSET_HOME")


@contextmanager
def home(folder: str | None) -> Iterator[None]:
    """MINDSET_HOME for the length of a block; None leaves it unset, which is the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        if folder is None:
            patch.delenv("MINDSET_HOME", raising=False)
        else:
            patch.setenv("MINDSET_HOME", folder)
        yield


def pytest_sessionstart() -> None:
    """Two workers share two cores: torch computes on one thread, and says so where a test asks."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MINDSET_HOME is an empty place that does not exist yet, except under the `packaged_model` marker."""
    if request.node.get_closest_marker("packaged_model"):
        request.getfixturevalue("smollm2_folder")
        with home(USERS_HOME):
            yield
    else:
        with home(str(tmp_path_factory.getbasetemp() / "homes" / f"{abs(hash(request.node.nodeid)):x}")):
            yield


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The packaged model in the user's own models folder."""
    from mindset.graft import packaged

    with home(USERS_HOME):
        known = next(model for model in packaged.list_models() if model.name == "smollm2")
    if known.state != "present":
        pytest.skip(f"{known.path} is missing: run `mindset models get smollm2`")
    return known.path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real models and texts that may not be copied into this project."""
    override = os.environ.get("MINDSET_SHARED")
    folder = Path(override) if override else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            f"{folder} is missing: put the shared material there or name its folder in MINDSET_SHARED"
        )
    return folder
