"""Functions that a model may ask to run: told by their signatures and docstrings, run with checked arguments.

    @tool
    def add(a: int, b: int = 1) -> int:
        '''Add two numbers.'''

    ToolSet([add])

Whatever goes wrong in a tool, or in what a model asks of it, is a result with `is_error`: the model reads it and can
do better. Does not know models. Functions that are not async run in a thread.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, get_type_hints, overload

from mindset.calls.canonical import Json
from mindset.errors import DataError, UsageError
from mindset.llm.docstrings import described
from mindset.llm.messages import ToolCall, ToolResult
from mindset.llm.request import ToolSpec
from mindset.llm.shapes import Shape

__all__ = ["Tool", "ToolSet", "tool"]

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What providers accept."""


@dataclass(frozen=True)
class Tool:
    """A function, and what a model is told of it."""

    spec: ToolSpec
    function: Callable[..., Any]
    shape: Shape
    """Of its arguments."""
    seconds: float | None = None
    """How long it may take; None: as long as it wants."""

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self.spec.name

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call the function, as if it were no tool."""
        return self.function(*given, **named)

    async def run(self, call: ToolCall) -> ToolResult:
        """What comes of a model's wish."""
        try:
            arguments = self.shape.check(call.arguments or "{}")
        except DataError as error:
            return ToolResult(call.id, f"wrong arguments for {self.name}: {error}", self.name, is_error=True)
        try:
            async with asyncio.timeout(self.seconds) as limit:
                value = await self._called({name: getattr(arguments, name) for name in self._names()})
        except TimeoutError as error:
            if not limit.expired():
                return _failed(call, self.name, error)
            late = f"{self.name} was stopped: it took longer than {self.seconds:g} seconds"
            return ToolResult(call.id, late, self.name, is_error=True)
        except Exception as error:
            return _failed(call, self.name, error)
        return ToolResult(call.id, _written(value), self.name)

    async def _called(self, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**arguments)
        value = await asyncio.to_thread(self.function, **arguments)
        return await value if inspect.isawaitable(value) else value

    def _names(self) -> Iterable[str]:
        properties: Mapping[str, Json] = self.spec.parameters["properties"]
        return properties.keys()


class ToolSet(Mapping[str, Tool]):
    """Tools by their names."""

    def __init__(self, tools: Iterable[Tool | Callable[..., Any]] = ()) -> None:
        """Plain functions become tools."""
        self._tools: dict[str, Tool] = {}
        for one in tools:
            made = one if isinstance(one, Tool) else tool(one)
            if made.name in self._tools:
                raise UsageError(f"two tools are called {made.name}: give one of them another name")
            self._tools[made.name] = made

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What a model is told."""
        return tuple(one.spec for one in self._tools.values())

    async def run(self, call: ToolCall) -> ToolResult:
        """What comes of a model's wish; a wish for what is not there is answered too."""
        if call.name not in self._tools:
            known = ", ".join(self._tools) or "none"
            return ToolResult(
                call.id, f"there is no tool {call.name!r}; there are: {known}", call.name, is_error=True
            )
        return await self._tools[call.name].run(call)

    def __getitem__(self, name: str) -> Tool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, seconds: float | None = None
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    seconds: float | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function, as a decorator or by a call; what is not given is read from the function."""
    if function is None:
        return lambda later: _made(later, name, description, seconds)
    return _made(function, name, description, seconds)


def _made(
    function: Callable[..., Any], name: str | None, description: str | None, seconds: float | None
) -> Tool:
    name = str(name or getattr(function, "__name__", ""))
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a tool: give name= letters, digits, _ and -, at most 64")
    summary, words = described(inspect.getdoc(function) or "")
    shape = _arguments(function, name, words)
    return Tool(ToolSpec(name, description or summary, shape.schema), function, shape, seconds)


def _arguments(function: Callable[..., Any], name: str, words: Mapping[str, str]) -> Shape:
    """The shape of a function's arguments: a dataclass with its parameters as fields."""
    from pydantic import ConfigDict, Field

    try:
        hints = get_type_hints(_annotated(function), include_extras=True)
        parameters = inspect.signature(function).parameters
    except (NameError, TypeError, ValueError) as error:
        raise UsageError(f"the tool {name} cannot be told by its signature: {error}") from error
    fields = []
    for parameter in parameters.values():
        _check(parameter, hints, name)
        hint = hints[parameter.name]
        text = words.get(parameter.name) or _said_beside(hint)
        told = hint if text is None else Annotated[hint, Field(description=text)]
        fields.append((parameter.name, told, _default(parameter)))
    made = make_dataclass(
        name, fields, kw_only=True, namespace={"__pydantic_config__": ConfigDict(extra="forbid")}
    )
    shape = Shape.of(made)
    schema = {"properties": {}, **shape.schema, "additionalProperties": False}
    return Shape(schema, shape.check)


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where the annotations of what can be called are."""
    if isinstance(function, functools.partial):
        return _annotated(function.func)
    return function if inspect.isroutine(function) else type(function).__call__


def _check(parameter: inspect.Parameter, hints: Mapping[str, Any], name: str) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise UsageError(
            f"the tool {name} takes {parameter.name} by place or in any number: "
            "every argument of a tool has a name of its own"
        )
    if parameter.name not in hints:
        raise UsageError(f"the tool {name} does not say of what type {parameter.name} is: annotate it")


def _default(parameter: inspect.Parameter) -> Any:
    value = parameter.default
    if value is parameter.empty:
        return field()
    if value.__class__.__hash__ is None:  # a list, say: dataclasses refuse to share it
        return field(default_factory=lambda: value)
    return field(default=value)


def _said_beside(hint: Any) -> str | None:
    """Words in `Annotated[int, "how many"]`."""
    return next((word for word in getattr(hint, "__metadata__", ()) if isinstance(word, str)), None)


def _written(value: Any) -> str:
    """What a tool returned, as text for a model: words as they are, anything else as JSON."""
    from pydantic_core import to_json

    if isinstance(value, str):
        return value
    return to_json(value, fallback=str, inf_nan_mode="strings").decode()


def _failed(call: ToolCall, name: str, error: Exception) -> ToolResult:
    return ToolResult(call.id, f"{name} failed: {type(error).__name__}: {error}", name, is_error=True)
