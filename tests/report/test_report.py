"""The report: its contents, and the page in a real, headless Chromium."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, expect
from typer.testing import CliRunner

from musicflamingo_cli.captioning.run_log import RunLog
from musicflamingo_cli.cli import app
from musicflamingo_cli.errors import ConfigError, FailureKind
from musicflamingo_cli.report import Source, contents, write_report
from musicflamingo_cli.report.contents import Entry
from musicflamingo_cli.report.figures import Figures
from musicflamingo_cli.text.t5_tokens import token_counter
from musicflamingo_cli.trust.scan import check_dataset
from musicflamingo_cli.types import Failure, Outcome, Track
from tests.report.conftest import assert_fits, open_page
from tests.trust.test_check import write_track

PRESETS = ("full", "structure")
NASTY = "</script><script>window.hacked = true</script><img src=x onerror='window.hacked = true'> \u2028 {{data}}"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 tracks: two share a caption, one caption is long, one sidecar is broken, one file is not audio."""
    root = tmp_path_factory.mktemp("report") / "100 % <music> #1"
    for number in range(14):
        audio = root / f"disc {number % 2}" / f"track {number:02d} #é?.wav"
        audio.parent.mkdir(parents=True, exist_ok=True)
        write_tone(audio, 1.0 + number / 10, 110.0 * (number + 1))
        full = f"A calm jazz piece no. {number:02d} at {80 + number} BPM in F# minor with piano."
        info = {"music_flamingo_full": full, "music_flamingo_structure": f"Intro and verse no. {number} here."}
        match number:
            case 3 | 4:
                info["music_flamingo_full"] = "The very same caption."
            case 5:
                info["music_flamingo_full"] = "On and on it goes. " * 40
            case 6:
                info["music_flamingo_full"] = NASTY
            case 7:
                del info["music_flamingo_structure"]
        audio.with_suffix(".INFO").write_text("{" if number == 8 else json.dumps(info))
        if number == 9:
            audio.write_bytes(b"no sound")
    return root


def write_tone(path: Path, seconds: float, hertz: float) -> None:
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * 22050)) / 22050), 22050)


def report_on(root: Path, out: Path, pictures: bool = True) -> tuple[Figures, list[Entry]]:
    """Write a report; return its figures and its tracks."""
    source = Source(root=root, presets=PRESETS, counter=token_counter(None), pictures=pictures)
    entries: list[Entry] = []
    return write_report(source, out, entries.extend), entries


def test_figures_of_a_dataset(dataset: Path, tmp_path: Path) -> None:
    figures, entries = report_on(dataset, tmp_path / "page.html")
    assert figures.as_json() == {
        "dataset": str(dataset),
        "tracks": 14,
        "complete": 12,
        "skipped": 0,
        "hours": round(sum(1.0 + n / 10 for n in range(14) if n != 9) / 3600, 3),
        "presets": {"full": 13, "structure": 12},
        "failures": {"sidecar": 1, "unreadable audio": 1},
        "shared_captions": 1,
        "checked": 0,
        "contradicted": 0,
        "outliers": 4,  # the long one, the one with markup, and the two short ones
    }
    assert figures.most_shared == [("full", "The very same caption.", 2)]
    assert [entry.thumbnail is None for entry in entries].count(True) == 1


def test_failures_of_the_last_run_are_counted(dataset: Path, tmp_path: Path) -> None:
    track = next(dataset.rglob("track 07*.wav"))
    failure = Failure(preset="structure", kind=FailureKind.TIMEOUT, reason="no answer")
    log = RunLog(None, [dataset])
    log.track(Outcome(track=Track(track, track), failures=(failure,)))
    assert report_on(dataset, tmp_path / "page.html", pictures=False)[0].failures["timeout"] == 1


def test_captions_of_the_tiny_model_are_a_problem(tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav", 1.0, 440)
    made = {"full": {"toy": True}}
    info = {"music_flamingo_full": "Baran belin", "music_flamingo_provenance": made}
    (tmp_path / "a.INFO").write_text(json.dumps(info))
    figures, (entry,) = report_on(tmp_path, tmp_path / "page.html", pictures=False)
    assert figures.captioned == {"full": 0, "structure": 0}
    assert figures.failures == {"tiny model": 1}
    assert entry.problem == "captions of the tiny model only"


def test_each_kind_of_failure_of_a_track_counts(dataset: Path, tmp_path: Path) -> None:
    track = next(dataset.rglob("track 07*.wav"))
    log = RunLog(None, [dataset])
    kinds = (FailureKind.TIMEOUT, FailureKind.REFUSED_ANSWER)
    failures = tuple(Failure(preset="structure", kind=kind, reason="no caption") for kind in kinds)
    log.track(Outcome(track=Track(track, track), failures=failures))
    found = report_on(dataset, tmp_path / "page.html", pictures=False)[0].failures
    assert (found["timeout"], found["refused answer"]) == (1, 1)


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    """Three tracks of 95 BPM after a check: a right caption, a wrong one, and one that another caption disputes."""
    captions = {"a right": ("It runs at 95 BPM.", "A chorus."), "b wrong": ("It runs at 131 BPM.", "A verse.")}
    (tmp_path / "music").mkdir()
    captions["c disputed"] = ("It runs at 95 BPM with a female singer.", "It is instrumental.")
    for name, (full, structure) in captions.items():
        write_tone(audio := tmp_path / "music" / f"{name}.wav", 1.0, 440)
        write_track(audio, music_flamingo_full=full, music_flamingo_structure=structure)
    list(check_dataset(tmp_path / "music"))
    return tmp_path / "music"


def test_the_check_is_in_the_report(checked: Path) -> None:
    figures, entries = report_on(checked, checked.parent / "page.html", pictures=False)
    assert (figures.as_json()["checked"], figures.as_json()["contradicted"]) == (3, 1)
    assert [entry.flags for entry in entries] == [[], ["contradicted"], ["in doubt"]]


@pytest.mark.slow
def test_the_most_doubtful_track_comes_first(chromium: Browser, checked: Path) -> None:
    out = checked.parent / "page.html"
    report_on(checked, out, pictures=False)
    page, complaints = open_page(chromium, out)
    expect(page.locator("tr.track .open")).to_have_text(["b wrong.wav", "c disputed.wav", "a right.wav"])
    page.select_option("#filter", "contradicted")
    expect(page.locator("tr.track .open")).to_have_text(["b wrong.wav"])
    page.locator("tr.track .open").click()
    expect(page.locator(".reasons li")).to_have_text("full: tempo 131 contradicted: measured 95.0 BPM, confidence 0.30")
    page.select_option("#filter", "doubt")
    page.click("button[data-sort=name]")
    expect(page.locator("tr.track .open")).to_have_text(["b wrong.wav", "c disputed.wav"])
    assert complaints == []
    page.close()


@pytest.mark.slow
def test_the_page_of_an_empty_folder_says_so(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    report_on(tmp_path / "music", tmp_path / "page.html")
    page = chromium.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.locator("#more")).to_have_text("No tracks.")
    page.close()


def test_only_a_report_is_replaced(dataset: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for _ in range(2):
        report_on(dataset, page, pictures=False)
    page.write_text("<html>my own page</html>")
    with pytest.raises(ConfigError, match="is another kind of file"):
        report_on(dataset, page, pictures=False)
    assert page.read_text() == "<html>my own page</html>"


def test_the_command_writes_the_page_and_prints_figures(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", str(dataset), "--preset", "full", "--json", "--no-spectrograms"])
    assert done.exit_code == 0
    figures = json.loads(done.stdout)
    assert (figures["tracks"], figures["presets"], figures["page"]) == (14, {"full": 13}, f"{dataset.name}-report.html")
    assert (tmp_path / figures["page"]).stat().st_size > 20_000


def test_a_page_refers_to_no_host(dataset: Path, tmp_path: Path) -> None:
    report_on(dataset, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "http://" not in text
    assert "https://" not in text


# -- in a browser --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report_page(dataset: Path) -> Path:
    """The page of the dataset."""
    page = dataset.parent / "page.html"
    report_on(dataset, page)
    return page


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_has_contrast(chromium: Browser, report_page: Path, scheme: Any, width: int) -> None:
    page, complaints = open_page(chromium, report_page, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.locator("tr.track").nth(1).click()
    assert_fits(page, width, {"body": 7, ".soft": 4.5})
    assert complaints == []
    page.close()


@pytest.mark.slow
def test_search_filter_and_sort(chromium: Browser, report_page: Path) -> None:
    page, complaints = open_page(chromium, report_page)
    rows = page.locator("tr.track")
    assert rows.count() == 14
    page.fill("#search", "PIECE no. 11")
    expect(page.locator("tr.track")).to_have_count(1)
    assert "track 11" in rows.first.inner_text()
    page.fill("#search", "")
    expect(rows).to_have_count(14)
    for name, number in (
        ("shared", 2),
        ("incomplete", 2),
        ("problem", 2),
        ("unusual", 4),
        ("beyond128", 1),
        ("beyond512", 0),
    ):
        page.select_option("#filter", name)
        assert (rows.count(), name) == (number, name)
    page.select_option("#filter", "all")
    page.click("button[data-sort=seconds]")
    lengths = [row.locator("td").nth(2).inner_text() for row in rows.all()]
    page.click("button[data-sort=seconds]")
    assert lengths == [row.locator("td").nth(2).inner_text() for row in rows.all()][::-1]
    assert complaints == []
    page.close()


@pytest.mark.slow
def test_a_track_opens_plays_and_shows_its_captions(chromium: Browser, report_page: Path) -> None:
    page, complaints = open_page(chromium, report_page)
    row = page.locator("tr.track", has_text="track 02")
    row.locator("button").focus()
    page.keyboard.press("Enter")
    detail = page.locator("tr.detail")
    assert "A calm jazz piece no. 02 at 82 BPM" in detail.inner_text()
    assert "Intro and verse no. 2" in detail.inner_text()
    page.evaluate("document.querySelector('audio').muted = true; document.querySelector('audio').play()")
    expect(page.locator("audio")).to_have_js_property("ended", True)
    assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(1.2, abs=0.01)
    page.keyboard.press("Enter")
    assert detail.count() == 0
    assert complaints == []
    page.close()


@pytest.mark.slow
def test_segments_are_listed_found_and_played(chromium: Browser, tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav", 6.0, 220.0)
    captions = {"full": "A quiet organ.", "structure": "The theme begins."}
    segments = [
        {"start": 0, "end": 2.5, "captions": {}, "silent": True},
        {"start": 2.5, "end": 4, "captions": captions},
        {"start": 4, "end": 6, "captions": {"full": NASTY, "mood": "Not a preset that is shown."}},
        {"start": 5, "end": 6, "captions": {"full": "Of the tiny model."}, "provenance": {"full": {"toy": True}}},
    ]
    (tmp_path / "a.INFO").write_text(json.dumps({"music_flamingo_segments": segments}))
    write_tone(tmp_path / "b.wav", 1.0, 220.0)
    report_on(tmp_path, tmp_path / "page.html")
    page, complaints = open_page(chromium, tmp_path / "page.html")
    page.fill("#search", "quiet organ")
    expect(page.locator("tr.track")).to_have_count(1)
    page.locator("tr.track").click()
    shown = page.locator("dl.segments")
    assert shown.locator("dt").all_inner_texts() == ["0:00-0:02.5", "0:02.5-0:04", "0:04-0:06"]
    texts = shown.locator("dd").all_inner_texts()
    assert texts[:3] == ["silent", "full: A quiet organ.", "structure: The theme begins."]
    assert texts[3].startswith("full: </script><script>")
    page.evaluate("document.querySelector('audio').muted = true")
    shown.locator("button").nth(2).click()  # the last 2 of 6 s: the end comes before the time limit of 5 s
    expect(page.locator("audio")).to_have_js_property("ended", True)
    assert (complaints, page.evaluate("window.hacked")) == ([], None)
    page.close()


@pytest.mark.slow
def test_captions_are_shown_as_text_not_markup(chromium: Browser, report_page: Path) -> None:
    page, complaints = open_page(chromium, report_page)
    page.locator("tr.track", has_text="track 06").click()
    assert page.locator("tr.detail dd").first.inner_text().startswith("</script><script>")
    assert page.evaluate("window.hacked") is None
    assert page.locator("h1").inner_text() == "100 % <music> #1"
    assert complaints == []
    page.close()


@pytest.mark.slow
def test_a_spectrogram_shows_the_pitch(chromium: Browser, report_page: Path) -> None:
    """Track 00 is a tone of 110 Hz, track 13 one of 1540 Hz: its brightest row is further up."""
    page, _ = open_page(chromium, report_page)
    brightest = """row => {
        const canvas = row.querySelector("canvas");
        const data = canvas.getContext("2d").getImageData(24, 0, 1, canvas.height).data;
        const levels = Array.from({length: canvas.height}, (_, at) => data[4 * at + 1]);
        return canvas.height - 1 - levels.indexOf(Math.min(...levels));
    }"""
    low, high = (page.locator("tr.track", has_text=name).evaluate(brightest) for name in ("track 00", "track 13"))
    assert low + 8 < high
    page.close()


@pytest.mark.slow
def test_a_page_of_five_thousand_tracks_is_fast(
    chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "thumbnail", lambda audio: bytes(range(0, 256)) * 2 + bytes(64))
    root = tmp_path / "music"
    write_tone(tmp_path / "tone.wav", 1.0, 440)
    for number in range(5000):
        folder = root / f"{number // 100:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:04d}.wav").symlink_to(tmp_path / "tone.wav")
        captions = {
            f"music_flamingo_{preset}": f"{preset} caption no. {number}. " + "It goes on. " * 40 for preset in PRESETS
        }
        (folder / f"{number:04d}.INFO").write_text(json.dumps(captions))
    began = time.monotonic()
    report_on(root, tmp_path / "page.html")
    made = time.monotonic() - began
    began = time.monotonic()
    page, complaints = open_page(chromium, tmp_path / "page.html")
    opened = time.monotonic() - began
    began = time.monotonic()
    page.fill("#search", "no. 4321.")
    expect(page.locator("tr.track")).to_have_count(1)
    searched = time.monotonic() - began
    print(f"5000 tracks: made in {made:.1f} s, opened in {opened:.2f} s, searched in {searched:.2f} s")
    assert opened < 5
    assert searched < 2
    page.fill("#search", "")
    expect(page.locator("tr.track")).to_have_count(100)
    page.locator("#more").scroll_into_view_if_needed()
    expect(page.locator("tr.track")).to_have_count(200)
    assert complaints == []
    page.close()
