"""`mindset serve`: a model for others, over HTTP as OpenAI's, at a Unix socket, and over gRPC.

A shell over `llm.serve`. Invariant: what is wrong with the places, the token or the names is said before a model loads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mindset.cli import failures, options, render
from mindset.graft.runtime import Dtype, Runtime

if TYPE_CHECKING:
    from mindset.llm.serve.listening import Urls

__all__ = ["serve"]

PORT: Any = click.IntRange(0, 65535)
DEFAULT_PORT = 8080


class GrpcPlace(click.ParamType[int | Path]):
    """A port, or the path of a Unix socket."""

    name = "PORT|PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Path:
        """A number is a port."""
        text = str(value)
        return int(PORT.convert(text, param, ctx)) if text.isdecimal() else Path(text)


def loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--device --dtype --threads`; the command receives them as one `runtime`."""

    @wraps(command)
    def with_runtime(*args: Any, device: str, dtype: Dtype | None, threads: int, **kwargs: Any) -> Any:
        return command(*args, runtime=Runtime(device, dtype, threads), **kwargs)

    decorated: Callable[..., Any] = with_runtime
    for option in reversed(options.RUNTIME[:3]):
        decorated = option(decorated)
    return decorated


@click.command(cls=failures.Command, short_help="Serve a model to other programs.")
@click.argument("model", metavar="MODEL")
@click.option("--http", type=PORT, metavar="PORT", help="Port for HTTP; 0: a free one.  [8080]")
@click.option("--grpc", type=GrpcPlace(), help="Port or Unix socket for gRPC.")
@click.option("--socket", type=options.FOLDER, metavar="PATH", help="Unix socket for HTTP, for you only.")
@click.option("--host", default="127.0.0.1", metavar="NAME", help="Where the ports are.  [127.0.0.1]")
@click.option(
    "--token-file", type=options.FOLDER, metavar="FILE", help="File with the token that is asked for."
)
@click.option("--name", "names", multiple=True, metavar="NAME", help="What the model is asked for as.")
@click.option(
    "--allow-origin", "origins", multiple=True, metavar="URL", help="A web page's origin that may ask."
)
@click.option(
    "--queue", type=click.IntRange(min=1), default=64, metavar="N",
    help="Requests at once, waiting ones too.  [64]",
)  # fmt: skip
@click.option(
    "--cache", type=options.Size(), metavar="SIZE", help="RAM for the caches of texts under way.  [4GiB]"
)
@options.ram_option
@loading_options
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="For requests that name none.  [each a new one]"
)
@options.json_option
def serve(
    *,
    model: str,
    http: int | None,
    grpc: int | Path | None,
    socket: Path | None,
    host: str,
    token_file: Path | None,
    names: tuple[str, ...],
    origins: tuple[str, ...],
    queue: int,
    cache: int | None,
    ram: int | None,
    runtime: Runtime,
    seed: int | None,
    as_json: bool,
) -> None:
    """Serve a model to other programs.

    Over HTTP as OpenAI's API is, with more beside it, and over gRPC.

    Prints a line a URL once it answers, and serves until it is told to stop (Ctrl-C, SIGTERM): then it takes no more
    requests and lets the answers under way end; told again, it breaks them off. Only this machine reaches 127.0.0.1;
    any other --host needs a token, in --token-file or MINDSET_TOKEN. More: docs/serving.md. Needs the extra `serve`:
    pip install 'mindset-lm[serve]'.

    \b
    Example:
      mindset serve smollm2
      curl localhost:8080/v1/completions -H 'Content-Type: application/json' -d '{"prompt": "Once", "max_tokens": 9}'
      mindset serve smol --grpc 8081 --token-file token.txt --host 0.0.0.0
    """
    from mindset.llm.serve.extra import need_serve

    need_serve()
    from mindset.calls.runs import run
    from mindset.llm.opening import open_client
    from mindset.llm.serve.auth import read_token
    from mindset.llm.serve.limits import Limits
    from mindset.llm.serve.listening import Doors
    from mindset.llm.serve.server import Server
    from mindset.llm.serve.server import serve as serve_client

    if http is None and grpc is None and socket is None:
        http = DEFAULT_PORT
    path = grpc if isinstance(grpc, Path) else None
    doors = Doors(host, http, grpc if isinstance(grpc, int) else None, socket, path)
    token = read_token(file=token_file)
    server = Server(
        open_client(model, attempts=1, **_settings(model, runtime, queue, ram, cache)),
        doors,
        token=token,
        origins=origins,
        names=names or _names(model),
        limits=Limits(places=queue),
        memory=_memory(model),
        seed=seed,
    )
    with run("serve"):
        serve_client(server, ready=lambda urls: _tell(model, urls, as_json))


def _tell(model: str, urls: Urls, as_json: bool) -> None:
    if as_json:
        told = {name: url or None for name, url in asdict(urls).items()}
        render.print_json({"model": model, "urls": told})
    else:
        for url in urls.all:
            render.say(f"{model} is served at {url}")


def _names(model: str) -> tuple[str, ...]:
    """A folder or file is asked for by its own name, or as it was given."""
    from mindset.graft.sources import parse_model

    name = parse_model(model)
    if name.kind in ("folder", "gguf"):
        path = Path(name.value).resolve()
        return tuple(dict.fromkeys((path.stem if name.kind == "gguf" else path.name, model)))
    return (model,)


def _memory(model: str) -> Path | None:
    """The folder whose memory can be looked at."""
    from mindset.graft.sources import parse_model

    name = parse_model(model)
    there = name.kind == "folder" and (Path(name.value) / "memory").is_dir()
    return Path(name.value) if there else None


def _settings(model: str, runtime: Runtime, queue: int, ram: int | None, cache: int | None) -> dict[str, Any]:
    """What a model that is loaded here is opened with; others have nothing to do with it."""
    from mindset.errors import UsageError
    from mindset.graft.sources import parse_model
    from mindset.llm.engine.batch import BatchSettings

    if parse_model(model).kind != "remote":
        return {
            "device": runtime.device,
            "dtype": runtime.torch_dtype,
            "threads": runtime.threads,
            "queue": queue,
            "ram": ram,
            "batch": BatchSettings() if cache is None else BatchSettings(cache_bytes=cache),
        }
    if runtime != Runtime() or ram is not None or cache is not None:
        raise UsageError(
            f"{model} is not loaded here: leave --device, --dtype, --threads, --ram and --cache alone"
        )
    return {}
