"""The report on a large dataset: an index and pages, with the contents of one page, in memory that does not grow."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.report import contents, pages
from musicflamingo_cli.text.t5_tokens import token_counter
from tests.report.conftest import open_page
from tests.report.test_report import dataset, report_on, write_tone

__all__ = ["dataset"]
SUMMARY = ("#path", "#totals", "#charts", "#shared")


@pytest.fixture
def several(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The report on 14 tracks as an index and three pages."""
    monkeypatch.setattr(pages, "TRACKS_PER_PAGE", 5)
    out = tmp_path / "all #1.html"
    report_on(dataset, out)
    return out


def rows_of(page: Page) -> list[str]:
    return page.locator("tr.track").evaluate_all("rows => rows.map(row => row.innerText)")  # type: ignore[no-any-return]


@pytest.mark.slow
def test_the_index_shows_what_one_page_shows(
    chromium: Browser, dataset: Path, several: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pages, "TRACKS_PER_PAGE", 14)
    report_on(dataset, tmp_path / "one.html")
    one, _ = open_page(chromium, tmp_path / "one.html")
    index, complaints = open_page(chromium, several, "#parts tr")
    for part in SUMMARY:
        assert index.locator(part).inner_html() == one.locator(part).inner_html()
        assert one.locator(part).inner_text()
    counts = index.locator("#parts tr").evaluate_all("rows => rows.map(row => row.innerText.split('\\t'))")
    assert [row[0] for row in counts] == ["1 to 5", "6 to 10", "11 to 14"]
    assert [sum(int(row[column]) for row in counts) for column in (3, 4, 5, 6, 7)] == [2, 2, 0, 2, 4]
    rows = []
    for number in (1, 2, 3):
        page, more = open_page(chromium, several.with_name("all #1-pages") / f"{number:04}.html")
        rows += rows_of(page)
        complaints += more
        page.close()
    assert rows == rows_of(one)
    assert complaints == []
    one.close()
    index.close()


@pytest.mark.slow
def test_pages_lead_to_one_another_and_play(chromium: Browser, several: Path) -> None:
    page, complaints = open_page(chromium, several, "#parts tr", viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("text=1 to 5")
    expect(page.locator("tr.track")).to_have_count(5)
    page.click("nav >> text=Next")
    page.click("nav >> text=Next")
    expect(page.locator("tr.track")).to_have_count(4)
    expect(page.locator("nav >> text=Next")).to_have_count(0)
    page.click("nav >> text=Previous")
    expect(page.locator("nav")).to_contain_text("Tracks 6 to 10")
    page.locator("tr.track").first.click()
    page.evaluate("document.querySelector('audio').muted = true; document.querySelector('audio').play()")
    expect(page.locator("audio")).to_have_js_property("ended", True)
    page.click("text=Whole dataset")
    expect(page.locator("#parts tr")).to_have_count(3)
    assert complaints == []
    page.close()


def test_one_page_and_several_replace_each_other(dataset: Path, several: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pages.folder_of(several)
    report_on(dataset, several)
    assert len(list(folder.glob("*.html"))) == 3
    monkeypatch.setattr(pages, "TRACKS_PER_PAGE", 14)
    report_on(dataset, several)
    assert 'id="tracks"' in several.read_text()
    assert not folder.exists()  # which showed what is no longer so


def test_a_folder_with_other_files_is_not_replaced(
    dataset: Path, several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = several.read_bytes()
    mine = pages.folder_of(several) / "notes.txt"
    mine.write_text("my notes")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        report_on(dataset, several)
    assert (mine.read_text(), several.read_bytes()) == ("my notes", before)
    monkeypatch.setattr(pages, "TRACKS_PER_PAGE", 14)
    report_on(dataset, several)  # which needs no folder
    assert mine.read_text() == "my notes"


def test_a_folder_of_another_kind_is_not_replaced(several: Path, dataset: Path) -> None:
    out = several.with_name("two.html")
    folder = pages.folder_of(out)
    folder.mkdir()
    with pytest.raises(ConfigError, match="no pages"):
        report_on(dataset, out)
    assert not out.exists()


def test_another_kind_of_file_is_noticed_before_reading(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    read: list[object] = []
    with pytest.raises(ConfigError, match="another kind"):
        pages.write_report(report_source(dataset), tmp_path / "page.html", read.extend)
    assert read == []


def report_source(root: Path) -> contents.Source:
    return contents.Source(root=root, presets=("full",), counter=token_counter(None))


def make_tracks(root: Path, number: int) -> None:
    root.mkdir(parents=True)
    write_tone(root.parent / "tone.wav", 0.1, 440)
    for at in range(number):
        folder = root / f"{at // 100:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{at:05d}.wav").symlink_to(root.parent / "tone.wav")
        text = f"Caption no. {at}. " + "It goes on. " * 100
        (folder / f"{at:05d}.INFO").write_text(json.dumps({"music_flamingo_full": text}))


def held_bytes() -> int:
    """Return the memory that is in use, without blocks of over 64 KiB: tables of the interpreter grow by such steps."""
    gc.collect()
    return sum(trace.size for trace in tracemalloc.take_snapshot().traces if trace.size <= 1 << 16)


def test_memory_does_not_grow_with_the_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the numbers of each caption: its entry and its caption of 1.2 kB are gone when its page is written."""
    monkeypatch.setattr(pages, "TRACKS_PER_PAGE", 64)  # as many as are read at a time, so that moments are alike
    monkeypatch.setattr(contents, "thumbnail", lambda audio: bytes(576))
    make_tracks(tmp_path / "music", 640)
    held: list[int] = []
    tracemalloc.start()
    pages.write_report(
        report_source(tmp_path / "music"), tmp_path / "a.html", lambda entries: held.append(held_bytes())
    )
    tracemalloc.stop()
    assert len(held) == len(list(tmp_path.glob("a-pages/*.html"))) == 10
    grown = (held[9] - held[3]) / (6 * 64)  # the first ones load modules
    print(f"{grown:.0f} bytes a track")
    assert grown < 300
