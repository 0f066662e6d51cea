"""The pictures in README and docs: none is older than what it shows. `make pictures` makes them again."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

from docs import pictures

ROOT = Path(__file__).parents[1]
SHOWN = json.loads(pictures.SHOWN.read_text(encoding="utf-8"))
OUTDATED = "the pictures are older than what they show: make pictures, and look at them"
NAMES = sorted(
    f"{name}-{theme}.{kind}"
    for kind, names in (("svg", ("batch", "caption", "doctor")), ("png", ("report", "review")))
    for name in names
    for theme in pictures.THEMES
)


@pytest.mark.parametrize("picture", ["batch", "report", "review"])
def test_what_they_show_has_not_changed(picture: str) -> None:
    assert pictures.sources_shown()[picture] == SHOWN[picture], OUTDATED


@pytest.mark.real
def test_caption_and_doctor_still_print_what_they_show(
    real_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSICFLAMINGO_LLAMA_DIR", str(real_llama_dir))
    pictures.put_songs(tmp_path / "Music")
    assert pictures.caption_headings(tmp_path) == SHOWN["caption"], OUTDATED
    # A row of the GPU is there only where there is one, and rows change places for no reader.
    assert set(pictures.doctor_labels(tmp_path)) >= set(SHOWN["doctor"]), OUTDATED


def test_every_picture_is_there_and_on_a_page_in_both_themes() -> None:
    assert sorted(path.name for path in pictures.PICTURES.iterdir() if path != pictures.SHOWN) == NAMES
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    assert sorted(re.findall(r'(?:srcset|src)="(?:docs/)?pictures/([^"]+)"', pages)) == NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".svg")])
def test_a_terminal_is_drawn_without_paths_of_a_machine(name: str) -> None:
    svg = (pictures.PICTURES / name).read_text(encoding="utf-8")
    assert len(re.findall("<text", svg)) > 10
    assert len(svg) < 150_000
    assert not re.search(r"/(home|root|Users|mnt|srv|opt)/|/tmp/pictures|Traceback|@font-face", svg)
    assert re.findall(r'(?:href|src)="(http[^"]*)"', svg) == []  # nothing is loaded from elsewhere


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".png")])
def test_a_page_is_drawn_in_full(name: str) -> None:
    data = (pictures.PICTURES / name).read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (1200, 800)
    assert 20_000 < len(data) < 500_000
