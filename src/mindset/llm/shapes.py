"""A shape that JSON must have: a type of Python, or a JSON schema; told to a model as a schema, checked when it comes.

    Shape.of(Invoice).read('{"total": 3}')        an Invoice
    Shape.of({"type": "object"}).read("{}")       a dict

Errors are sentences that a model can mend its answer by.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mindset.calls.canonical import Json
from mindset.errors import DataError, UsageError

__all__ = ["Shape"]

MOST_ERRORS = 5
"""That are told at once."""
_VALUES = ("default", "examples", "const", "enum")
"""Fields of a schema that hold values, not schemas."""


@dataclass(frozen=True)
class Shape:
    """What JSON must look like, and what becomes of it."""

    schema: Mapping[str, Json]
    """As JSON schema."""
    check: Callable[[str], Any]
    """Turns JSON text into the value, or raises `DataError`."""
    wrapped: bool = False
    """Whether the value stands in an object as `value`: models are asked for objects."""

    @classmethod
    def of(cls, wanted: Any) -> Shape:
        """The shape of a type (a dataclass, a pydantic model, `list[int]`, a `Literal`), or of a JSON schema."""
        if isinstance(wanted, Mapping):
            return cls(wanted, _schema_check(wanted))
        schema, check = _type_check(wanted)
        if schema.get("type") == "object" or "$ref" in schema:
            return cls(schema, check)
        below = schema.pop("$defs", {})
        outer = {
            "type": "object",
            "properties": {"value": schema},
            "required": ["value"],
            "additionalProperties": False,
        }
        return cls({**outer, **({"$defs": below} if below else {})}, check, wrapped=True)

    def read(self, text: str) -> Any:
        """The value in a text that is JSON, or has it in a fence as models like to write it."""
        text = _unfenced(text)
        if not self.wrapped:
            return self.check(text)
        outer = _parsed(text)
        if not isinstance(outer, dict) or outer.keys() != {"value"}:
            raise DataError('it should be an object with one field, "value"')
        return self.check(json.dumps(outer["value"]))


def _unfenced(text: str) -> str:
    """JSON out of a fence of Markdown."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        return text[text.index("\n") : -3].strip()
    return text


def _parsed(text: str) -> Json:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise DataError(f"it is no JSON: {error}") from error


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _schema_check(schema: Mapping[str, Json]) -> Callable[[str], Json]:
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise UsageError(f"this is no JSON schema: {error.message}") from error
    validator = Draft202012Validator(schema)

    def check(text: str) -> Json:
        value = _parsed(text)
        wrong = [(error.json_path, error.message) for error in validator.iter_errors(value)]
        if wrong:
            raise DataError(_told([(where.removeprefix("$").lstrip("."), what) for where, what in wrong]))
        return value

    return check


def _type_check(wanted: Any) -> tuple[dict[str, Json], Callable[[str], Any]]:
    from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
    from pydantic.errors import PydanticInvalidForJsonSchema

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(wanted)
        schema = _untitled(adapter.json_schema())
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, PydanticUserError) as error:
        raise UsageError(f"{wanted!r} has no JSON schema: {str(error).splitlines()[0]}") from error

    def check(text: str) -> Any:
        try:
            return adapter.validate_json(text)
        except ValidationError as error:
            wrong = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)]
            raise DataError(_told(wrong)) from error

    return schema, check


def _told(wrong: list[tuple[str, str]]) -> str:
    told = [f"{where}: {what}" if where else what for where, what in wrong[:MOST_ERRORS]]
    return "; ".join(told) + (f"; and {len(wrong) - MOST_ERRORS} more" if len(wrong) > MOST_ERRORS else "")


def _untitled(schema: Any) -> Any:
    """Without the titles that are only the names again."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: value if name in _VALUES else _untitled(value)
        for name, value in schema.items()
        if not (name == "title" and isinstance(value, str))
    }
