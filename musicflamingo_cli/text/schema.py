"""JSON schemas of answers: the part of the standard that every engine's grammar takes and that is checked here."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_IS_TYPE: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "string": frozenset(["enum", "minLength", "maxLength"]),
    "array": frozenset(["items", "minItems", "maxItems"]),
    "object": frozenset(["properties", "required"]),
}
_DEEPEST = 8  # nested schemas
_MOST = 1000  # repetitions; llama.cpp (b11434) makes no grammar of more


def schema_problem(schema: Any, depth: int = 0) -> str:
    """Return why a schema cannot be used, in words; empty where it can.

    Each schema has one ``type``. Objects have ``properties`` (others are not allowed) and may have ``required``; arrays
    have ``items``, and may have ``minItems`` and ``maxItems``; strings may have ``enum``, ``minLength``, ``maxLength``.
    """
    if not isinstance(schema, dict) or schema.get("type") not in list(_IS_TYPE):  # also values that have no hash
        return f"a schema needs `type`, one of {', '.join(_IS_TYPE)}"
    kind = schema["type"]
    for keyword, value in schema.items():
        if keyword not in ("type", *_KEYWORDS.get(kind, ())):
            return f"{keyword!r} is not supported for type {kind}"
        if keyword[:3] in ("min", "max") and not (_IS_TYPE["integer"](value) and 0 <= value <= _MOST):
            return f"{keyword} must be a whole number up to {_MOST}"
        if keyword in ("enum", "required") and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            return f"{keyword} must be a list of texts"
        if keyword == "enum" and (problem := _problem_of_texts(value)):
            return problem
    if depth == _DEEPEST:
        return "it is nested too deeply"
    if kind == "array":
        return schema_problem(schema.get("items"), depth + 1)
    if kind == "object":
        return _object_problem(schema, depth)
    return "enum is empty" if schema.get("enum") == [] else ""


def _problem_of_texts(texts: Iterable[str]) -> str:
    """Return which text of a schema the grammars cannot hold: its characters would have to be escaped in JSON."""
    for text in texts:
        if any(each in '"\\' or ord(each) > 0xFFFF or unicodedata.category(each)[0] == "C" for each in text):
            return f"{text!r} must not hold quotation marks, backslashes, emoji or control characters"
    return ""


def _object_problem(schema: Mapping[str, Any], depth: int) -> str:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties or not all(isinstance(name, str) for name in properties):
        return "an object needs `properties`"
    if problem := _problem_of_texts(properties):
        return problem
    if unknown := [name for name in schema.get("required", ()) if name not in properties]:
        return f"required names {unknown[0]!r}, which is not among the properties"
    return next((problem for each in properties.values() if (problem := schema_problem(each, depth + 1))), "")


def parsed(text: str, schema: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the JSON value of an answer, or None and why it does not follow the schema."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None, "not valid JSON"
    problem = mismatch(value, schema)
    return (None, problem) if problem else (value, "")


def mismatch(value: Any, schema: Mapping[str, Any], place: str = "the answer") -> str:
    """Return where and how a value does not follow a schema; empty where it does."""
    kind = schema["type"]
    if not _IS_TYPE[kind](value):
        return f"{place} is not of type {kind}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{place} is not one of the values allowed"
    if kind in ("string", "array"):
        unit = "Length" if kind == "string" else "Items"
        if not schema.get(f"min{unit}", 0) <= len(value) <= schema.get(f"max{unit}", len(value)):
            return f"{place} is too short or too long"
    if kind == "array":
        return next((found for each in value if (found := mismatch(each, schema["items"], f"a part of {place}"))), "")
    if kind == "object":
        return _object_mismatch(value, schema, place)
    return ""


def _object_mismatch(value: Mapping[str, Any], schema: Mapping[str, Any], place: str) -> str:
    properties = schema["properties"]
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        return f"{place} lacks {missing[0]}"
    if unknown := [name for name in value if name not in properties]:
        return f"{place} has {unknown[0][:40]}, which the schema lacks"
    return next((found for name, each in value.items() if (found := mismatch(each, properties[name], name))), "")
