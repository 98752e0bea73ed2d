"""The client that MODEL means: one grammar for models here, servers, scripts and recorded runs.

    open_client("smollm2"), open_client("openai:gpt-5-mini", timeout=30), open_client("http://localhost:8080/v1#any")

Settings are those of `Policy`, `policy`, `log` and `budget`, and those of the client that MODEL means. Nothing is
loaded or asked before the client is used; what a client needs is imported only when it is opened. In a replay
(`MINDSET_REPLAY`) a model that would be computed here is none: the run answers in its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from mindset.calls.runs import replayed
from mindset.errors import MissingError, UsageError
from mindset.graft.sources import parse_model
from mindset.llm.client import Client
from mindset.llm.policy import Policy

__all__ = ["open_client"]

_REMOTE: dict[str, tuple[str, str]] = {
    "openai:": ("mindset.llm.openai_client", "OpenAIClient"),
    "anthropic:": ("mindset.llm.anthropic_client", "AnthropicClient"),
    "http://": ("mindset.llm.openai_client", "OpenAIClient"),
    "https://": ("mindset.llm.openai_client", "OpenAIClient"),
    "grpc://": ("mindset.llm.grpc_client", "GrpcClient"),
    "script:": ("mindset.llm.scripted", "ScriptedClient"),
    "replay:": ("mindset.llm.replaying", "ReplayClient"),
}
_EXTRAS = {"grpc": "serve", "google": "serve"}


def open_client(model: str, **settings: Any) -> Client:
    """The client that MODEL means."""
    name = parse_model(model)
    prefix = next((prefix for prefix in _REMOTE if name.value.startswith(prefix)), None)
    if name.kind != "remote" or prefix is None:
        if replayed() is not None:
            shared = ("policy", "log", "budget", *(field.name for field in fields(Policy)))
            kept = {key: value for key, value in settings.items() if key in shared}
            return _made("mindset.llm.replaying", "StandIn", model, kept)
        return _made("mindset.llm.local", "LocalClient", model, settings)
    module, kind = _REMOTE[prefix]
    what: object = name.value
    if prefix == "script:":
        what = Path(name.value.removeprefix(prefix)).expanduser()
        settings = {"model": name.value, **settings}
    elif prefix == "replay:":
        what = name.value.removeprefix(prefix)
    return _made(module, kind, what, settings)


def _made(module: str, kind: str, what: object, settings: dict[str, Any]) -> Client:
    make = cast("Callable[..., Client]", getattr(_imported(module), kind))
    policy = {f.name: settings.pop(f.name) for f in fields(Policy) if f.name in settings}
    if policy:
        settings["policy"] = replace(settings.get("policy") or Policy(), **policy)
    own = list(inspect.signature(make).parameters)[1:]
    unknown = [name for name in settings if name not in own]
    if unknown:
        known = sorted({*own, *(f.name for f in fields(Policy))} - {"model"})
        raise UsageError(f"{kind} has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    return make(what, **settings)


def _imported(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise MissingError(
            f"this client needs the extra `{extra}`: pip install 'mindset-lm[{extra}]'"
        ) from error
