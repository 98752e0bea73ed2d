from __future__ import annotations

from typing import Any

import pytest
from llm.serve.asking import ask

from benchmarks.serving_fuzz import SAMPLES
from mindset.llm.serve.table import ENDPOINTS


@pytest.fixture(scope="module")
def document(echo: str) -> dict[str, Any]:
    found: dict[str, Any] = ask(echo, "/openapi.json").json
    return found


def test_it_tells_of_every_endpoint(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert told == {(one.method, one.path.replace(":path}", "}")) for one in ENDPOINTS}
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"].endswith(".")
            assert {"200", "400", "401", "404", "413", "429", "503"} <= set(operation["responses"])


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                _, *path = value["$ref"].split("/")
                found: Any = document
                for part in path:
                    found = found[part]
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)


def test_bodies_are_those_that_are_checked(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for one in ENDPOINTS:
        if one.body is None:
            continue
        operation = document["paths"][one.path][one.method.lower()]
        ref = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = schemas[ref.rsplit("/", 1)[1]]
        fields = {field.alias or name for name, field in one.body.model_fields.items()}
        assert set(schema["properties"]) == fields
        assert set(schema.get("required", ())) == {
            field.alias or name for name, field in one.body.model_fields.items() if field.is_required()
        }


@pytest.mark.parametrize("path", sorted(SAMPLES))
def test_there_is_a_body_that_is_answered(echo: str, path: str) -> None:
    assert ask(echo, path, SAMPLES[path]).status == 200
