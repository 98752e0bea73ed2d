"""Bodies and messages made from what a server says that it takes: its own /openapi.json, and llm.proto.

Some are right, some are right with something wrong in them, some are noise. One source of randomness makes all of them,
so that a seed gives the same ones again, and hypothesis can hand in its own.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Mapping
from typing import Any

__all__ = ["body", "message", "noise", "schemas_by_path"]

_ODD = (
    "",
    " ",
    "\x00",
    "é",
    "\u202e",
    "😀",
    "\uffff",
    "a" * 300,
    "<|im_start|>",
    "../../etc/passwd",
    "' or 1=1 --",
    "%s%n",
)
_NUMBERS = (0, 1, -1, 2, 0.5, -0.0, 1e-300, 1e300, 2**31, 2**63, -(2**63), 2**64, 10**30)


def schemas_by_path(document: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of each path's body."""
    found = {}
    for path, methods in document["paths"].items():
        if "requestBody" in methods.get("post", {}):
            found[path] = methods["post"]["requestBody"]["content"]["application/json"]["schema"]
    return found


def body(rng: random.Random, schema: Mapping[str, Any], document: Mapping[str, Any]) -> bytes:
    """A body for a path: right, nearly right, or noise."""
    kind = rng.random()
    if kind < 0.1:
        return noise(rng)
    value = _value(rng, schema, document, 0) if kind < 0.9 else _json(rng, 0)
    if isinstance(value, dict) and "model" in value and rng.random() < 0.9:
        value["model"] = None
    for _ in range(rng.choice((0, 0, 1, 1, 3))):
        value = _spoilt(rng, value)
    data = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return _torn(rng, data) if rng.random() < 0.1 else data


def noise(rng: random.Random) -> bytes:
    """Bytes that mean nothing, or JSON that nobody asked for."""
    length = rng.choice((0, 1, 5, 50, 500))
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(rng.randrange(256) for _ in range(length))
    if kind == 1:
        return "".join(rng.choice('{}[]",:0123456789eE+-.\\untrfals \n') for _ in range(length)).encode()
    if kind == 2:
        return rng.choice((b"[", b'{"a":', b"[[", b'{"":[')) * rng.choice((10, 1000, 50_000))
    return rng.choice(
        (b"NaN", b"[1e999]", b'"\\ud800"', b"\xef\xbb\xbf{}", b"{}" * 3, b"9" * 5000, b'{"a":\xff}')
    )


def message(rng: random.Random, descriptor: Any) -> bytes:
    """A message for a method of gRPC, as bytes: right, torn, or noise."""
    from google.protobuf.message_factory import GetMessageClass

    if rng.random() < 0.2:
        return bytes(rng.randrange(256) for _ in range(rng.choice((1, 5, 50, 500))))
    made = GetMessageClass(descriptor)()
    _fill(rng, made, 0)
    if "model" in descriptor.fields_by_name and rng.random() < 0.9:
        made.model = ""
    data = made.SerializeToString()
    return _torn(rng, data) if data and rng.random() < 0.2 else bytes(data)


def _value(rng: random.Random, schema: Mapping[str, Any], document: Mapping[str, Any], depth: int) -> Any:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return _value(rng, document["components"]["schemas"][name], document, depth)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return _value(rng, rng.choice(schema[word]), document, depth)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    made = {
        "object": _object,
        "array": _array,
        "string": _text,
        "integer": _integer,
        "number": _number,
    }.get(schema.get("type", ""))
    if made is not None:
        return made(rng, schema, document, depth)
    return {"boolean": rng.random() < 0.5, "null": None}.get(schema.get("type", ""), _json(rng, depth))


def _object(rng: random.Random, schema: Mapping[str, Any], document: Mapping[str, Any], depth: int) -> Any:
    told = {}
    for name, inner in schema.get("properties", {}).items():
        if name in schema.get("required", ()) or rng.random() < (0.3 if depth < 6 else 0):
            told[name] = _value(rng, inner, document, depth + 1)
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping):
        told |= {_word(rng): _value(rng, more, document, depth + 1) for _ in range(rng.randrange(3))}
    return told or ({} if "properties" in schema else _json(rng, 2, dict))


def _array(rng: random.Random, schema: Mapping[str, Any], document: Mapping[str, Any], depth: int) -> Any:
    count = max(schema.get("minItems", 0), rng.choice((0, 1, 1, 2, 5)))
    return [_value(rng, schema.get("items", {}), document, depth + 1) for _ in range(count)]


def _text(rng: random.Random, schema: Mapping[str, Any], *_: Any) -> str:
    if "pattern" in schema:
        return rng.choice(("add", "a.b", "get_it", "x" * 128))
    least, most = schema.get("minLength", 0), schema.get("maxLength", 1000)
    text = "".join(_word(rng) for _ in range(rng.randrange(4)))
    return (text + "x" * least)[:most] if len(text) < least else text[:most]


def _integer(rng: random.Random, schema: Mapping[str, Any], *_: Any) -> int:
    low, high = schema.get("minimum", -(2**31)), schema.get("maximum", 2**31)
    return rng.choice((low, high, rng.randint(low, min(high, low + 30))))


def _number(rng: random.Random, schema: Mapping[str, Any], *_: Any) -> float:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1e6))
    high = schema.get("maximum", 1e6)
    return rng.choice((high, rng.uniform(low, high)))


def _json(rng: random.Random, depth: int, kind: type | None = None) -> Any:
    if kind is dict:
        return {_word(rng): _json(rng, depth + 1) for _ in range(rng.randrange(3))}
    choice = rng.randrange(8 if depth < 5 else 5)
    if choice < 2:
        return rng.choice((None, True, False))
    if choice == 2:
        return rng.choice(_NUMBERS)
    if choice < 5:
        return _word(rng)
    if choice == 5:
        return [_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {_word(rng): _json(rng, depth + 1) for _ in range(rng.randrange(4))}


def _spoilt(rng: random.Random, value: Any) -> Any:
    """The value with something in it that does not belong there."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = rng.choice(sorted(value))
        if rng.random() < 0.2:
            return {key: inner for key, inner in value.items() if key != name}
        return value | {name: _spoilt(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], _spoilt(rng, value[place]), *value[place + 1 :]]
    return rng.choice((_json(rng, 0), "\ud800", [], {}, None, -1, 1e308, [value], {"": value}))


def _torn(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return rng.choice((data[:at], data[at:], data[:at] + b"\xff" + data[at:], data + b"}"))


def _word(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return rng.choice(_ODD)
    return "".join(rng.choice(string.ascii_letters + " ") for _ in range(rng.randrange(1, 8)))


def _fill(rng: random.Random, made: Any, depth: int) -> None:
    """Some of a message's fields."""
    for field in made.DESCRIPTOR.fields:
        if rng.random() < (0.5 if depth < 4 else 0.9):
            continue
        if field.message_type is not None:
            there = getattr(made, field.name)
            if field.is_repeated:
                for _ in range(rng.randrange(3)):
                    _fill(rng, there.add(), depth + 1)
            else:
                there.SetInParent()
                _fill(rng, there, depth + 1)
        elif field.is_repeated:
            getattr(made, field.name).extend(_scalar(rng, field) for _ in range(rng.randrange(4)))
        else:
            setattr(made, field.name, _scalar(rng, field))


def _scalar(rng: random.Random, field: Any) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
        return rng.choice((_word(rng), "user", "assistant", '{"type": "object"}', "auto", "[" * 90))
    if kind == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == field.CPPTYPE_DOUBLE:
        return rng.choice((0.0, 0.5, 1.0, -1.0, float("nan"), float("inf"), 1e300))
    return rng.choice((0, 1, 2, 7, -1, 255, 256, 2**31, 2**63 - 1, -(2**63)))
