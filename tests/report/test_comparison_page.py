"""The page of a comparison, in a real, headless Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from musicflamingo_cli.captioning.comparison import PresetComparison, Side, SideCaption, TrackComparison
from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError, FailureKind
from musicflamingo_cli.report.comparison_page import require_free_page, write_comparison
from musicflamingo_cli.report.comparison_rows import Run, Tone, rows_of
from musicflamingo_cli.types import Failure
from tests.conftest import MakeWav
from tests.fakes.engines import REAL_PAIR, TINY_PAIR
from tests.report.conftest import assert_fits, open_page

NASTY = "<script>window.hacked = true</script><img src=x onerror='window.hacked = true'> \u2028 {{tracks}} </td>"
FIRST = "A slow house tune at 128 BPM in C# minor with piano, pads and no drums."
SECOND = "A fast house tune at 64 BPM in Db minor with piano and drums."


def caption(text: str, engine: str = "server") -> SideCaption:
    side = Side(engine, REAL_PAIR if engine == "server" else TINY_PAIR, Settings())
    if not text:
        failure = Failure(preset="full", kind=FailureKind.TIMEOUT, reason=f"no answer {NASTY}", hint="allow more")
        return SideCaption(side=side, failure=failure)
    return SideCaption(side=side, text=text, seconds=1.25, tokens=7 if engine == "server" else None)


def compared(first: str, second: str) -> PresetComparison:
    return PresetComparison((caption(first), caption(second, "embedded")))


@pytest.fixture
def page_file(make_wav: MakeWav, tmp_path: Path) -> Path:
    audio = make_wav("100 % <b>music</b> #1/tone é?.wav", seconds=0.5)
    presets = {"full": compared(FIRST, SECOND), "<i>nasty": compared(NASTY, "Calm."), "brief": compared(FIRST, "")}
    write_comparison([TrackComparison(audio, presets)], tmp_path / "page.html")
    return tmp_path / "page.html"


def test_rows_hold_claims_and_how_they_agree() -> None:
    rows = {row.label: row.cells for row in rows_of(compared(FIRST, SECOND))}
    assert rows["seconds"] == ((Run("1.2"),), (Run("1.2"),))
    assert rows["tokens"] == ((Run("7"),), (Run("—"),))
    assert rows["tempo"] == (
        (Run("128 BPM", Tone.DIFFERS),),
        (Run("64 BPM", Tone.DIFFERS), Run(" (half)", Tone.REMARK)),
    )
    assert rows["key"] == ((Run("C# minor"),), (Run("Db minor"), Run(" (same)", Tone.REMARK)))
    assert rows["genres"] == ((Run("house"),), (Run("house"), Run(" (1 of 1 shared)", Tone.REMARK)))
    assert rows["instruments"][1] == (
        Run("piano"),
        Run(", "),
        Run("drums", Tone.DIFFERS),
        Run(" (1 of 3 shared)", Tone.REMARK),
    )
    assert [run.text for run in rows["caption"][1] if run.tone is Tone.DIFFERS] == ["fast", "64", "Db"]


def test_a_failure_stands_in_its_place_and_marks_nothing() -> None:
    rows = {row.label: row.cells for row in rows_of(compared("", SECOND))}
    assert rows["caption"][0][0].tone is Tone.FAILED
    assert rows["tempo"] == ((Run("—"),), (Run("64 BPM"),))
    assert rows["caption"][1] == (Run(SECOND),)


def test_only_a_comparison_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for _ in range(2):
        require_free_page(page)
        write_comparison([], page)
    page.write_text("<!doctype html>\n<!-- a report of musicflamingo -->")
    with pytest.raises(ConfigError, match="is another kind of file"):
        require_free_page(page)
    with pytest.raises(ConfigError, match="is another kind of file"):
        write_comparison([], page)


def test_the_page_refers_to_no_host_and_has_no_script(page_file: Path) -> None:
    text = page_file.read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text


@pytest.mark.slow
def test_hostile_text_is_shown_as_text(chromium: Browser, page_file: Path) -> None:
    page, complaints = open_page(chromium, page_file, "table")
    assert page.locator("h2").inner_text().endswith("100 % <b>music</b> #1/tone é?.wav")
    assert page.locator("h3").all_inner_texts() == ["full", "<i>nasty", "brief"]
    cell = page.locator("table").nth(1).locator("tr:last-child td").first
    assert cell.inner_text().startswith("<script>window.hacked = true</script><img")
    assert "{{tracks}}" in cell.inner_text()
    assert page.locator("script, img, h2 b, h3 i").count() == 0
    assert "no answer <script>" in page.locator(".flag").inner_text()
    assert complaints == []
    page.close()


@pytest.mark.slow
def test_words_that_differ_are_marked_and_audio_plays(chromium: Browser, page_file: Path) -> None:
    page, complaints = open_page(chromium, page_file, "table")
    full = page.locator("table").first
    assert full.locator("thead small").all_inner_texts() == ["music-flamingo-hf.Q6_K.gguf", "tiny.gguf"]
    assert full.locator("tr:last-child td").nth(1).locator("mark").all_inner_texts() == ["fast", "64", "Db"]
    page.evaluate("document.querySelector('audio').muted = true; document.querySelector('audio').play()")
    expect(page.locator("audio")).to_have_js_property("ended", True)
    assert complaints == []
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_has_contrast(chromium: Browser, page_file: Path, scheme: Any, width: int) -> None:
    page, complaints = open_page(
        chromium, page_file, "table", viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    assert_fits(page, width, {"td": 7, "td .soft": 4.5, "tbody th": 4.5, "td .flag": 4.5})
    assert complaints == []
    page.close()
