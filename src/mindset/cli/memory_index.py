"""`mindset memory index`: choose how each shard is searched, on queries recorded from a text.

Also what `mindset memory stats` says of it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mindset.cli import failures, options, render

if TYPE_CHECKING:
    from mindset.store.index_choice import Choice
    from mindset.store.slab_store import SlabStore

__all__ = ["index", "search_lines", "searched_by"]


@click.command("index", cls=failures.Command)
@options.model_folder
@click.option(
    "--text", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Text to record queries on.  [Python's help topics]",
)  # fmt: skip
@click.option(
    "--queries", type=click.IntRange(min=1), default=4096, metavar="N", help="Tokens to record.  [4096]"
)
@click.option("--k", type=click.IntRange(min=1), default=16, metavar="K", help="Slots to be found.  [16]")
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    default=64,
    metavar="C",
    help="Slots named to find them.  [64]",
)
@click.option(
    "--recall", type=click.FloatRange(0, 1), default=0.98, metavar="R", help="Share to be found.  [0.98]"
)
@click.option(
    "--smallest", type=click.IntRange(min=1), default=10_000, metavar="N",
    help="Shards of fewer slots are searched exactly without a trial.  [10000]",
)  # fmt: skip
@options.json_option
def index(folder: Path, text: Path | None, queries: int, as_json: bool, **wanted: Any) -> None:
    """Choose how each shard is searched: every slot, or an index.

    An index is chosen where it finds what was asked for on recorded queries and is at least three times as fast. It
    is a cache in DIR/memory/cache, which may be deleted at any time. Needs the extra `ann` (faiss).

    \b
    Example:
      mindset memory index smol --text wiki.txt --recall 0.95
    """
    from mindset.graft.indexing import index_folder
    from mindset.probe.texts import pydoc_topics
    from mindset.store.index_choice import Wanted

    content = pydoc_topics() if text is None else text.read_text(encoding="utf-8")
    chosen = index_folder(folder, content, queries, Wanted(**wanted))
    if as_json:
        render.print_json([asdict(one) for one in chosen])
    else:
        for line in search_lines({(one.layer, one.shard): asdict(one) for one in chosen}):
            render.say(line)


def searched_by(store: SlabStore) -> dict[tuple[int, str], dict[str, Any] | None]:
    """By layer and shard: what was chosen; None where nobody tried, which is exact."""
    from mindset.store.index_choice import read_choice
    from mindset.store.shard_index import IndexPlace

    found: dict[tuple[int, str], dict[str, Any] | None] = {}
    for info in store.shards():
        place = IndexPlace.of(store.folder, info.layer, info.name, store.memory.generation)
        choice: Choice | None = read_choice(place)
        found[info.layer, info.name] = None if choice is None else asdict(choice)
    return found


def search_lines(searched: dict[tuple[int, str], dict[str, Any] | None]) -> list[str]:
    """A sentence for each thing that is said of shards, with the layers that it is said of."""
    said: dict[str, list[int]] = {}
    for (layer, shard), choice in searched.items():
        told = "exact (no index was tried)" if choice is None else f"{choice['engine']}: {choice['why']}"
        said.setdefault(f"{shard}: {told}", []).append(layer)
    return [f"search in layer {_layers(layers)}, {sentence}" for sentence, layers in said.items()]


def _layers(layers: list[int]) -> str:
    contiguous = layers == list(range(layers[0], layers[-1] + 1)) and len(layers) > 2
    return f"{layers[0]}-{layers[-1]}" if contiguous else ", ".join(map(str, layers))
