from __future__ import annotations

from typing import Any

import pytest

from musicflamingo_cli.text.schema import mismatch, parsed, schema_problem

SCHEMA = {
    "type": "object",
    "properties": {
        "genre": {"type": "string", "maxLength": 10},
        "mood": {"type": "array", "items": {"type": "string", "enum": ["calm", "tense"]}, "maxItems": 2},
        "bpm": {"type": "integer"},
    },
    "required": ["genre", "bpm"],
}


def test_a_usable_schema() -> None:
    assert schema_problem(SCHEMA) == ""


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ([], "needs `type`"),
        ({"type": ["string", "null"]}, "needs `type`"),
        ({"type": "string", "pattern": "a"}, "'pattern' is not supported"),
        ({"type": "string", "maxLength": -1}, "whole number"),
        ({"type": "string", "enum": []}, "enum is empty"),
        ({"type": "string", "maxLength": 1001}, "whole number up to 1000"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 1001}, "whole number up to 1000"),
        ({"type": "string", "enum": [1]}, "list of texts"),
        *(({"type": "string", "enum": ["ok", text]}, "must not hold") for text in ['12" single', "a\\b", "a\nb", "🎵"]),
        ({"type": "object", "properties": {'7" mix': {"type": "string"}}}, "must not hold"),
        ({"type": "array"}, "needs `type`"),
        ({"type": "object", "properties": {}}, "needs `properties`"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]}, "'b'"),
        ({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "x"}}}}, "needs `type`"),
    ],
)
def test_schemas_that_cannot_be_used(schema: Any, said: str) -> None:
    assert said in schema_problem(schema)


def test_texts_that_need_no_escape() -> None:
    spaces = "no\u00a0break, ideographic\u3000space, é, 音"
    assert schema_problem({"type": "string", "enum": [spaces]}) == ""


def test_a_schema_that_contains_itself() -> None:
    schema: dict[str, Any] = {"type": "array"}
    schema["items"] = schema
    assert "deeply" in schema_problem(schema)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"genre": "dub", "bpm": 70, "mood": ["calm"]}, ""),
        ({"genre": "dub", "bpm": 70}, ""),
        ([], "not of type object"),
        ({"genre": "dub"}, "lacks bpm"),
        ({"genre": "dub", "bpm": True}, "bpm is not of type integer"),
        ({"genre": "dub", "bpm": 70.5}, "bpm is not of type integer"),
        ({"genre": "drum and bass", "bpm": 1}, "genre is too short or too long"),
        ({"genre": "dub", "bpm": 1, "mood": ["sad"]}, "not one of the values"),
        ({"genre": "dub", "bpm": 1, "mood": ["calm"] * 3}, "too short or too long"),
        ({"genre": "dub", "bpm": 1, "year": 1}, "has year"),
    ],
)
def test_values_and_the_schema(value: Any, said: str) -> None:
    problem = mismatch(value, SCHEMA)
    assert said in problem
    assert bool(problem) == bool(said)


def test_answers_that_are_no_json() -> None:
    assert parsed('{"genre": "dub", "bpm": 7', SCHEMA) == (None, "not valid JSON")
    assert parsed("[" * 100_000, SCHEMA)[1] == "not valid JSON"
    assert parsed('{"genre": "dub", "bpm": 7}', SCHEMA) == ({"genre": "dub", "bpm": 7}, "")
