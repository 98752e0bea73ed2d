"""Where mindset keeps what belongs to the user: one folder, with a sub-folder for each kind of thing.

The folder is the platform's place for user data, or `MINDSET_HOME` where that is set. Does not know what
lies in the places. Invariant: nothing is created here, so a question about a place leaves no folder behind.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["home", "models_dir"]


def home() -> Path:
    """Return the user's mindset folder, which need not exist yet."""
    override = os.environ.get("MINDSET_HOME")
    if override:
        return Path(override).expanduser().absolute()
    return Path(platformdirs.user_data_path("mindset", appauthor=False))


def models_dir() -> Path:
    """Return the folder of fetched models, one sub-folder each."""
    return home() / "models"
