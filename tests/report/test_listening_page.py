"""The page of `listen`, in a real, headless Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from musicflamingo_cli.config import GenerationSettings
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.errors import ConfigError, FailureKind
from musicflamingo_cli.listening.clips import MadeClip, request_for
from musicflamingo_cli.listening.round_trip import Result, Returned, RoundTrip
from musicflamingo_cli.listening.sources import Source
from musicflamingo_cli.models.checkpoints import MUSICGEN
from musicflamingo_cli.models.generators import Generator
from musicflamingo_cli.report.listening_page import require_free_page, write_listening
from musicflamingo_cli.trust.claims import Field
from musicflamingo_cli.types import Failure
from tests.conftest import MakeWav
from tests.report.conftest import assert_fits, open_page

NASTY = "<script>window.hacked = true</script><img src=x onerror='window.hacked = true'> \u2028 {{clips}} </p>"
CAPTION = "House at 120 BPM in A minor with piano. This end is cut off."
MODEL = Generator(
    folder=Path("x"), name="facebook/musicgen-small", model_type=MUSICGEN, rate=32_000, channels=1, size=0, licence="CC"
)


def clip(audio: Path, wav: Path, preset: str, caption: str, **more: Any) -> MadeClip:
    source = Source(track_for(audio), wav.stem, preset, caption, is_edited=preset == "full")
    return MadeClip(
        source=source,
        wav=wav,
        request=request_for(source, MODEL, GenerationSettings(), melody=False),
        **{"tokens": 12, "read": len(caption), "samples": 32_000, "rate": 32_000, "channels": 1, **more},
    )


@pytest.fixture
def page_file(make_wav: MakeWav, tmp_path: Path) -> Path:
    audio = make_wav("music/100 % <b>music</b> #1 é?.wav", seconds=2.0, rate=44_100, channels=2)
    wav = make_wav("clips/100 % <b>music</b> #1 é?.full.wav", seconds=1.0, hertz=880.0, rate=32_000)
    trip = RoundTrip(
        captioner="tiny",
        preset="full",
        caption="House with piano.",
        bpm=120.5,
        claims=(
            Returned(Field.TEMPO, "120", Result.CAME_BACK, "measured 120.5 BPM"),
            Returned(Field.KEY, "A minor", Result.UNKNOWN),
            Returned(Field.INSTRUMENT, "piano", Result.CAME_BACK),
        ),
    )
    lost = RoundTrip("tiny", "full", NASTY, claims=(Returned(Field.TEMPO, "90", Result.LOST, NASTY),))
    failed = Source(track_for(audio), "x", "lyrics", failure=Failure("lyrics", FailureKind.OTHER, NASTY, "a hint"))
    clips = [
        clip(audio, wav, "full", CAPTION, tokens=600, read=40, round_trip=trip),
        clip(audio, wav, "brief", NASTY, round_trip=lost),
        MadeClip(failed, wav, failure=failed.failure),
    ]
    write_listening(clips, tmp_path / "clips" / "listen.html")
    return tmp_path / "clips" / "listen.html"


def test_only_such_a_page_is_replaced(page_file: Path) -> None:
    require_free_page(page_file)
    write_listening([], page_file)
    page_file.write_text("<!doctype html>\n<!-- a report of musicflamingo -->")
    with pytest.raises(ConfigError, match="is another kind of file"):
        write_listening([], page_file)


def test_the_page_refers_to_no_host_and_has_no_script(page_file: Path) -> None:
    text = page_file.read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text


@pytest.mark.slow
def test_original_and_clip_stand_side_by_side_and_play(chromium: Browser, page_file: Path) -> None:
    page, complaints = open_page(chromium, page_file, "section", viewport={"width": 1280, "height": 900})
    first = page.locator("main > section").nth(1)
    assert first.locator("h2").inner_text().endswith("100 % <b>music</b> #1 é?.wav [full]")
    boxes = [first.locator("audio").nth(number).bounding_box() for number in (0, 1)]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    lengths = []
    for number in (0, 1):
        player = page.locator("audio").nth(number)
        player.evaluate("each => { each.muted = true; each.playbackRate = 4; each.play() }")
        expect(player).to_have_js_property("ended", True)
        lengths.append(player.evaluate("each => each.duration"))
    assert lengths == [2, 1]
    sizes = first.locator("img").evaluate_all("all => all.map(each => [each.naturalWidth, each.naturalHeight])")
    assert sizes == [[480, 96], [480, 96]]
    assert complaints == []
    page.close()


@pytest.mark.slow
def test_caption_cut_and_round_trip_are_shown(chromium: Browser, page_file: Path) -> None:
    page, complaints = open_page(chromium, page_file, "section")
    first = page.locator("main > section").nth(1)
    assert first.locator("del").inner_text() == CAPTION[40:].strip()
    facts = first.locator(".facts").first.inner_text()
    assert "600 T5 tokens; edited by a person; 1 s at 32000 Hz, mono; guidance 3, temperature 1, top-k 250" in facts
    assert "the text encoder does not read the crossed-out end" in facts
    rows = first.locator("tbody tr").all_inner_texts()
    assert rows[0].split("\t") == ["tempo", "120", "came back", "measured 120.5 BPM"]
    table = page.locator("main > section").first.locator("tbody tr").all_inner_texts()
    assert [row.split("\t") for row in table] == [
        ["full", "1", "1 of 1", "0 of 0, 1 unknown", "1 of 1", "2 of 2, 1 unknown", "—"],
        ["brief", "1", "0 of 1", "—", "—", "0 of 1", "—"],
    ]
    assert complaints == []
    page.close()


@pytest.mark.slow
def test_hostile_text_of_listen_is_shown_as_text(chromium: Browser, page_file: Path) -> None:
    page, complaints = open_page(chromium, page_file, "section")
    second = page.locator("main > section").nth(2)
    assert second.locator(".caption").inner_text().startswith("<script>window.hacked = true</script><img")
    assert "{{clips}}" in second.locator(".caption").inner_text()
    assert page.locator("main > section").nth(3).locator(".flag").inner_text().startswith("<script>")
    assert page.locator("script, h2 b").count() == 0
    assert page.evaluate("window.hacked") is None
    assert complaints == []
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_listen_fits(chromium: Browser, page_file: Path, scheme: Any, width: int) -> None:
    page, complaints = open_page(
        chromium, page_file, "section", viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    assert_fits(page, width, {".caption": 7, ".facts": 4.5, ".facts .flag": 4.5, ".caption del": 4.5})
    assert complaints == []
    page.close()
