"""Keep transformers' progress bars and load reports off the caller's terminal.

A library call does not write to the terminal: whoever wants progress passes a callback, and what a load
report would say becomes an error or a note of ours. Does not know what is loaded. Invariant: transformers
keeps its switches in globals, and they stand after the block as they stood before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let transformers draw no bar and log errors only."""
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging as transformers_logging

    # Neither is annotated. The GGUF reader draws with tqdm directly, without asking the switch.
    gguf_reader: Any = modeling_gguf_pytorch_utils
    logging: Any = transformers_logging
    bar, shown, verbosity = gguf_reader.tqdm, logging.is_progress_bar_enabled(), logging.get_verbosity()
    gguf_reader.tqdm = _no_bar
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        gguf_reader.tqdm = bar
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _no_bar(tensors: Iterable[Any], **_: object) -> Iterable[Any]:
    return tensors
