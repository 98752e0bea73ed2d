"""A log on each kind of database, and a disk with little room."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from mindset.calls.log import CallLog


@pytest.fixture
def log(url: sa.URL) -> Iterator[CallLog]:
    opened = CallLog.open(url.render_as_string(hide_password=False))
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    yield
    CallLog.close_all()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a megabyte of room."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs root and `mount` for a small tmpfs")
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"needs a tmpfs, and this machine forbids mounting one: {made.stderr.decode().strip()}")
    yield folder
    CallLog.close_all()
    subprocess.run(["umount", "-l", folder], check=True)
