"""`mindset memory serve` and `check`: share a memory through a daemon, and see whether one answers.

Shells over `store.daemon`. Invariant: what is wrong with the place to listen at is said before anything is served.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from mindset.cli import failures, options, render

__all__ = ["check", "serve"]


@click.command(cls=failures.Command)
@options.model_folder
@click.option("--socket", type=options.FOLDER, metavar="PATH", help="Unix socket, for you only.  [in DIR]")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N", help="Port of 127.0.0.1 instead; 0: a free one."
)
@options.json_option
def serve(folder: Path, socket: Path | None, port: int | None, as_json: bool) -> None:
    """Share a memory: other processes read and change it through this one.

    Prints the URL that other commands take in place of DIR, and serves until it is told to stop (Ctrl-C, SIGTERM).
    While it does, nobody else can write in DIR. Everybody on this machine can reach a port; a socket is yours only.
    Needs the extra `serve`: pip install 'mindset-lm[serve]'.

    \b
    Example:
      mindset memory serve smol
      mindset memory search unix:smol/memory/daemon.sock --limit 5
    """
    from mindset.errors import UsageError
    from mindset.store.daemon.address import port_address, socket_address
    from mindset.store.daemon.extra import need_grpc

    if socket is not None and port is not None:
        raise UsageError("give --socket or --port, not both")
    need_grpc()
    from mindset.store.daemon.server import serve as serve_memory

    address = None if socket is None else socket_address(socket)
    if port is not None:
        address = port_address(port)

    def ready(url: str) -> None:
        if as_json:
            render.print_json({"url": url, "folder": str(folder)})
        else:
            render.say(f"{folder} is served at {url}")

    serve_memory(folder, address, ready=ready)


@click.command(cls=failures.Command)
@click.argument("url", metavar="URL")
@options.json_option
@click.pass_context
def check(ctx: click.Context, url: str, as_json: bool) -> None:
    """Say whether a daemon answers at URL, and whether it fits this release.

    Exit code 1 where not.

    \b
    Example:
      mindset memory check unix:smol/memory/daemon.sock
    """
    from mindset.store.daemon.extra import need_grpc

    need_grpc()
    from mindset.store.daemon.check import check as check_daemon

    found = check_daemon(url)
    if as_json:
        render.print_json(asdict(found) | {"fits": found.fits})
    elif found.answers:
        render.say(
            f"{found.url}: mindset {found.version}, protocol {found.protocol}, schema {found.schema}, "
            f"serves {found.folder} ({found.slots:,} slots)"
        )
        render.say("it fits" if found.fits else f"it does not fit: {'; '.join(found.problems)}")
    else:
        render.say("; ".join(found.problems))
    if not found.fits:
        ctx.exit(1)
