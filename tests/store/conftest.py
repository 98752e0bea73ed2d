from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Mount = Callable[[str], None]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Mount]]:
    """Mount a real file system of 256 KiB; the second part mounts it anew with other options."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs root and `mount` for a small tmpfs")
    folder = tmp_path / "disk"
    folder.mkdir()

    def remount(options: str) -> None:
        subprocess.run([mount, "-o", f"remount,{options}", folder], check=True)

    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"needs a tmpfs, and this machine forbids mounting one: {made.stderr.decode().strip()}")
    try:
        yield folder, remount
    finally:
        # Lazily: maps that a test still holds keep the file system busy.
        subprocess.run(["umount", "-l", folder], check=True)
