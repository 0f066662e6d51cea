from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli.errors import SidecarError
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar, splice

OURS = {"music_flamingo_full": "A calm piece.", "music_flamingo_provenance": {"full": {"seed": 1}}}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def same(first: Any, second: Any) -> bool:
    """Equality that takes NaN for itself."""
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and bool(first == second)


@pytest.mark.parametrize("text", [None, "{}", " { }\n", '{"a": 1}'])
def test_half_a_character_is_escaped(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "a.INFO"
    if text is not None:
        file.write_text(text)
    merge_sidecar(file, {"music_flamingo_note": "é \ud83d"})
    assert read_sidecar(file)["music_flamingo_note"] == "é \ud83d"


@given(
    st.dictionaries(st.text().filter(lambda key: not key.startswith("music_flamingo_")), json_values, max_size=6),
    st.sampled_from([None, 2, 4, "\t"]),
    st.booleans(),
)
def test_a_merge_keeps_every_foreign_key_in_order(foreign: dict[str, Any], indent: Any, ascii_only: bool) -> None:
    text = json.dumps(foreign, indent=indent, ensure_ascii=ascii_only)
    merged = json.loads(splice(text, OURS))
    assert same(dict(list(merged.items())[: len(foreign)]), foreign)
    assert {key: merged[key] for key in OURS} == OURS
    assert splice(splice(text, OURS), OURS) == splice(text, OURS)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, '{\n  "music_flamingo_a": "é"\n}\n'),
        ("", '{\n  "music_flamingo_a": "é"\n}\n'),
        ("{}", '{\n  "music_flamingo_a": "é"\n}'),
        ('{"x": 1}', '{"x": 1, "music_flamingo_a": "é"}'),
        ('{\n  "x": NaN\n}\n', '{\n  "x": NaN,\n  "music_flamingo_a": "é"\n}\n'),
        ('{\n    "x": 1e400,\n    "y": 0.10\n}', '{\n    "x": 1e400,\n    "y": 0.10,\n    "music_flamingo_a": "é"\n}'),
        ('{\r\n  "x": "\\ud800"\r\n}', '{\r\n  "x": "\\ud800",\r\n  "music_flamingo_a": "é"\r\n}'),
        ('{"music_flamingo_a": "old" , "x": [1,2]}', '{"music_flamingo_a": "é" , "x": [1,2]}'),
        ('{"x": 1, "x": 2}', '{"x": 1, "x": 2, "music_flamingo_a": "é"}'),
        ('\ufeff{"x": 1}', '\ufeff{"x": 1, "music_flamingo_a": "é"}'),
        ('{"a\\"b": {"}": "{"}}', '{"a\\"b": {"}": "{"}, "music_flamingo_a": "é"}'),
    ],
)
def test_splice_touches_nothing_else(before: str | None, after: str) -> None:
    assert splice(before, {"music_flamingo_a": "é"}) == after


@pytest.mark.parametrize(
    "content", [b"not json", b"[1, 2]", b'{"x": 1', b'{"x": 1}}', b"\xff\xfe{}", b"[" * 100_000, b"null"]
)
def test_what_cannot_be_parsed_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "song.INFO"
    path.write_bytes(content)
    for attempt in (lambda: read_sidecar(path), lambda: merge_sidecar(path, OURS)):
        with pytest.raises(SidecarError) as caught:
            attempt()
        assert "song.INFO" in str(caught.value)
        assert caught.value.hint
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_sidecar_reads_back_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "song.INFO"
    assert merge_sidecar(path, OURS)
    assert read_sidecar(path) == OURS
    assert not merge_sidecar(path, OURS)  # nothing changed: not written again
    assert list(tmp_path.iterdir()) == [path]


def test_provenance_is_merged_preset_by_preset(tmp_path: Path) -> None:
    path = tmp_path / "song.INFO"
    merge_sidecar(path, OURS)
    merge_sidecar(path, {"music_flamingo_provenance": {"brief": {"seed": 2}}})
    assert read_sidecar(path)["music_flamingo_provenance"] == {"full": {"seed": 1}, "brief": {"seed": 2}}


def test_foreign_keys_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keys must begin with music_flamingo_"):
        merge_sidecar(tmp_path / "song.INFO", {"bpm": 120})


def test_values_that_are_no_text_can_still_be_written(tmp_path: Path) -> None:
    path = tmp_path / "song.INFO"
    path.write_text('{"music_flamingo_provenance": {"old": "\\ud800"}}')
    merge_sidecar(path, OURS)
    assert read_sidecar(path)["music_flamingo_provenance"] == {"old": "\ud800", "full": {"seed": 1}}


@pytest.mark.parametrize(
    ("before", "ours", "after"),
    [
        ({"music_flamingo_approved": True}, {"music_flamingo_full": "New."}, False),
        ({"music_flamingo_approved": True, "music_flamingo_full": "Same."}, {"music_flamingo_full": "Same."}, True),
        ({"music_flamingo_approved": True}, {"music_flamingo_measured": {"seconds": 1.0}}, True),
        ({"music_flamingo_approved": True}, {"music_flamingo_provenance": {"full": {"audio": {}}}}, True),
        ({"music_flamingo_approved": False}, {"music_flamingo_full": "New."}, False),
        ({}, {"music_flamingo_full": "New."}, None),
        ({"music_flamingo_full": "Same."}, {"music_flamingo_approved": True}, True),
        ({"music_flamingo_approved": True}, {"music_flamingo_full": "New.", "music_flamingo_approved": True}, True),
    ],
)
def test_captions_that_change_are_no_longer_approved(
    tmp_path: Path, before: dict[str, object], ours: dict[str, object], after: bool | None
) -> None:
    path = tmp_path / "a.INFO"
    path.write_text(json.dumps(before))
    merge_sidecar(path, ours)
    assert read_sidecar(path).get("music_flamingo_approved") is after
