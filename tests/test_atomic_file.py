from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mindset.atomic_file import naming_a_full_disk, replacing
from mindset.errors import DiskFullError, MindsetError


def test_the_name_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_a_disk_full_error(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFullError, match="free some space") as caught, naming_a_full_disk(tmp_path):
        raise OSError(number, "said the system")
    assert caught.value.errno == number
    assert isinstance(caught.value, MindsetError)
    assert str(tmp_path) in str(caught.value)


def test_other_system_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), naming_a_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "no")
