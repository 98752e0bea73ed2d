"""One writer, also among processes; a killed one holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mindset.errors import BusyError
from mindset.journal.folder_lock import writing_in

HOLD = """
import sys, time
from mindset.journal.folder_lock import writing_in
with writing_in(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_waits_until_the_first_is_gone(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match="another process is writing"), writing_in(tmp_path, 0.1):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with writing_in(tmp_path, 5), writing_in(tmp_path, 5):
        pass
