"""The page in a real, headless Chromium: the whole flow by keyboard, accessibility, every width, light and dark."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from tests.report.conftest import contrast
from tests.review.conftest import NASTY, Server, StartReview, info_of, make_dataset, write_tone
from tests.review.test_edits import foreign

pytestmark = pytest.mark.slow

AXE = "axe-core@4.10.2"
OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, start_review: StartReview) -> Iterator[OpenPage]:
    """``open_page(server)`` opens the review; at the end, it must not have complained or asked any other host."""
    complaints: list[str] = []
    contexts = []

    def opened(server: Server, **options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(f"http://127.0.0.1:{server.port}/") else complaints.append(request.url)
            ),
        )
        page.goto(server.url)
        page.wait_for_selector(".caption")
        expect(page.locator("#count")).not_to_contain_text("reading")
        return page

    yield opened
    for context in contexts:
        context.close()
    unexpected = [text for text in complaints if "409 (Conflict)" not in text]
    assert unexpected == []


def sidecars(root: Path) -> list[Path]:
    return sorted(root.rglob("*.INFO"))


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def until(page: Page, condition: str) -> None:
    """Wait for a condition; not with wait_for_function, whose eval the page's policy refuses."""
    deadline = time.monotonic() + 10
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def at(page: Page, number: int) -> None:
    """Wait until the track of this number in the list is open."""
    disc, track = divmod(number, 25)
    expect(page.locator("#detail h2")).to_contain_text(f"disc {disc}/track {2 * track + disc:02d}")


def test_fifty_tracks_by_keyboard_alone(open_page: OpenPage, start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 50)
    files = sidecars(root)
    others = [foreign(file) for file in files]
    before = [file.read_bytes() for file in files]
    page = open_page(start_review(root))
    expect(page.locator("#legend")).to_be_visible()
    press(page, "?")
    expect(page.locator("#legend")).to_be_hidden()
    for number in range(20):  # approve twenty
        at(page, number)
        press(page, "Enter")
    at(page, 20)
    assert [read_sidecar(file).get("music_flamingo_approved") for file in files[:21]] == [True] * 20 + [None]

    press(page, "e")  # edit, with a preview of what is saved
    editor = page.locator("textarea[data-editor]")
    expect(editor).to_be_focused()
    press(page, "Control+a")
    page.keyboard.type("A **bold** caption at ~90 BPM")
    expect(page.locator(".preview")).to_contain_text("Saved as: A bold caption at about 90 BPM")
    expect(page.locator(".preview")).to_contain_text("tokens")
    press(page, "Enter")
    expect(editor).to_have_count(0)
    info = read_sidecar(files[20])
    assert info["music_flamingo_full"] == "A bold caption at about 90 BPM"
    assert info["music_flamingo_provenance"]["full"]["edited"] is True
    expect(page.locator(".caption").first).to_contain_text("edited")

    press(page, "2", "e", "Control+a")  # the second caption: edit, approve, go on
    page.keyboard.type("Verse and chorus.")
    press(page, "Control+Enter")
    at(page, 21)
    info = read_sidecar(files[20])
    assert (info["music_flamingo_structure"], info["music_flamingo_approved"]) == ("Verse and chorus.", True)

    press(page, "e")  # leave the editor: nothing is saved, and the draft comes back
    page.keyboard.type(" More.")
    press(page, "Escape")
    expect(editor).to_have_count(0)
    assert files[21].read_bytes() == before[21]
    press(page, "e")
    assert editor.input_value().endswith("piano. More.")
    press(page, "Escape")

    press(page, "x")  # exclude two, then take one back
    at(page, 22)
    press(page, "Backspace")
    at(page, 23)
    press(page, "z")
    at(page, 22)
    expect(page.locator("#status")).to_contain_text("Undone: exclude")
    excluded = [read_sidecar(file).get("music_flamingo_excluded") for file in files[21:24]]
    assert excluded == [True, None, None]
    assert files[22].read_bytes() == before[22]
    press(page, "y")
    expect(page.locator("#status")).to_contain_text("Done again")
    assert read_sidecar(files[22])["music_flamingo_excluded"] is True
    press(page, "Control+z")
    expect(page.locator("#status")).to_contain_text("Undone")

    press(page, "n")  # a note
    page.keyboard.type("listen again")
    press(page, "Enter")
    expect(page.locator("#note-place")).to_contain_text("listen again")
    assert read_sidecar(files[22])["music_flamingo_note"] == "listen again"
    press(page, "2", "a")  # one caption approved
    expect(page.locator(".caption").nth(1)).to_contain_text("approved")
    assert read_sidecar(files[22])["music_flamingo_provenance"]["structure"] == {"approved": True}

    press(page, "/")  # search, then replace in what is listed
    page.keyboard.type("disc 1/ piece no. 4")
    expect(page.locator("#count")).to_contain_text("5 of 50")
    press(page, "Enter", "r")
    expect(page.locator("#replace input").first).to_be_focused()
    page.keyboard.type("calm")
    press(page, "Tab")
    page.keyboard.type("wild")
    press(page, "Enter")
    expect(page.locator("#replace li")).to_have_count(5)
    expect(page.locator("#replace li p").first).to_contain_text("A calm wild jazz piece")
    expect(page.locator("#replace li ins").first).to_have_text("wild")
    page.get_by_role("checkbox", name=re.compile("track 43")).focus()
    press(page, "Space")  # leave one out
    expect(page.locator("#replace")).to_contain_text("4 of 5 captions change")
    page.get_by_role("button", name="Apply").focus()
    press(page, "Enter")
    expect(page.locator("#status")).to_contain_text("Changed 4 tracks")
    wild = [file.name for file in files if "wild" in read_sidecar(file)["music_flamingo_full"]]
    assert sorted(name[6:8] for name in wild) == ["41", "45", "47", "49"]

    press(page, "s", "w")  # a trigger word for the selected one
    page.keyboard.type("mytrigger,")
    press(page, "Enter")
    expect(page.locator("#replace li")).to_have_count(2)
    press(page, "Enter")
    expect(page.locator("#status")).to_contain_text("Changed 1 tracks")
    assert sum("mytrigger, " in file.read_text() for file in files) == 1

    for _ in range(40):  # undo everything
        press(page, "z")
    expect(page.locator("#status")).to_contain_text("There is nothing to undo", timeout=30_000)
    assert [foreign(file) for file in files] == others
    assert [file.read_bytes() for file in files] == before
    assert {path.suffix for path in root.rglob("*") if path.is_file() and path.name[0] != "."} == {".wav", ".INFO"}


def test_playing_seeking_and_the_pictures(open_page: OpenPage, start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 2)
    write_tone(root / "disc 0" / "track 00 #é?.wav", 30.0)
    page = open_page(start_review(root))
    press(page, "j")
    until(page, "document.querySelector('audio').duration < 29")
    press(page, "k")
    at_start = "document.querySelector('audio').currentTime"
    page.evaluate("document.querySelector('audio').muted = true")
    until(page, "document.querySelector('audio').duration > 29")
    press(page, "ArrowRight", "ArrowRight")
    assert page.evaluate(at_start) == pytest.approx(10, abs=0.5)
    press(page, "Space")
    until(page, "document.querySelector('audio').currentTime > 10.2")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    press(page, "e", "Control+Space")  # also while typing
    until(page, "document.querySelector('audio').paused")
    press(page, "Escape")
    slider = page.get_by_role("slider")
    assert int(slider.get_attribute("aria-valuenow") or 0) >= 10
    box = slider.bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + 10)
    assert page.evaluate(at_start) == pytest.approx(24, abs=0.5)
    painted = (
        "[...document.querySelectorAll('canvas')].map(each => each.getContext('2d')"
        ".getImageData(0, 0, each.width, each.height).data.some(value => value))"
    )
    assert page.evaluate(painted) == [True, True]


def test_what_chromium_cannot_play_is_converted(open_page: OpenPage, start_review: StartReview, tmp_path: Path) -> None:
    write_tone(tmp_path / "a.aiff", 2.0)
    page = open_page(start_review(tmp_path))
    until(page, "document.querySelector('audio').duration > 1.9")


def type_into_the_first_caption(open_page: OpenPage, start_review: StartReview, folder: Path) -> tuple[Page, Path]:
    """A review of three tracks in which `Mine.` is typed and not saved; its page, and the track's sidecar."""
    root = make_dataset(folder, 3)
    page = open_page(start_review(root))
    press(page, "e", "Control+a")
    page.keyboard.type("Mine.")
    return page, sidecars(root)[0]


def test_a_conflict_shows_both_and_loses_neither(
    open_page: OpenPage, start_review: StartReview, tmp_path: Path
) -> None:
    page, file = type_into_the_first_caption(open_page, start_review, tmp_path)
    merge_sidecar(file, {"music_flamingo_full": "Theirs."})
    page.wait_for_timeout(2500)  # the page learns of it, and moves nothing under the person's hands
    expect(page.locator("textarea[data-editor]")).to_have_value("Mine.")
    press(page, "Enter")
    expect(page.locator(".conflict blockquote")).to_have_text("Theirs.")
    expect(page.locator("textarea[data-editor]")).to_have_value("Mine.")
    assert read_sidecar(file)["music_flamingo_full"] == "Theirs."
    expect(page.get_by_role("button", name="Replace it with mine")).to_be_focused()
    press(page, "Enter")
    expect(page.locator("textarea[data-editor]")).to_have_count(0)
    assert read_sidecar(file)["music_flamingo_full"] == "Mine."


def test_captions_that_changed_unseen_are_not_approved(
    open_page: OpenPage, start_review: StartReview, tmp_path: Path
) -> None:
    """A batch writes the second caption while the first one is edited and approved."""
    page, file = type_into_the_first_caption(open_page, start_review, tmp_path)
    merge_sidecar(file, {"music_flamingo_structure": "Written meanwhile."})
    press(page, "Control+Enter")
    expect(page.locator(".caption").nth(1)).to_contain_text("Written meanwhile.")
    expect(page.locator("body")).to_contain_text("look at it again")
    info = read_sidecar(file)
    assert info["music_flamingo_full"] == "Mine."
    assert info.get("music_flamingo_approved", False) is False
    press(page, "Enter")
    page.wait_for_timeout(500)
    assert read_sidecar(file)["music_flamingo_approved"] is True


def test_a_batch_is_followed(open_page: OpenPage, start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 4)
    for file in sidecars(root):
        file.write_text("{}")
    page = open_page(start_review(root))
    expect(page.locator("#filter option[value=missing]")).to_have_text("missing (4)")
    expect(page.locator(".caption").first).to_contain_text("No caption.")
    first, second, *_ = sidecars(root)
    merge_sidecar(first, {"music_flamingo_full": "Just written.", "music_flamingo_structure": "As well."})
    expect(page.locator(".caption").first).to_contain_text("Just written.", timeout=10_000)
    expect(page.locator("#filter option[value=missing]")).to_have_text("missing (3)")
    press(page, "e")
    page.keyboard.type(" And typed")
    merge_sidecar(second, {"music_flamingo_full": "Another.", "music_flamingo_structure": "As well."})
    expect(page.locator("#filter option[value=missing]")).to_have_text("missing (2)", timeout=10_000)
    expect(page.locator("textarea[data-editor]")).to_have_value("Just written. And typed")
    expect(page.locator("textarea[data-editor]")).to_be_focused()


def test_markup_in_captions_and_names_is_text(open_page: OpenPage, start_review: StartReview, tmp_path: Path) -> None:
    audio = write_tone(tmp_path / "music" / "<img src=x onerror=hacked=1> & <b>b.wav")
    info = {**info_of(0), "music_flamingo_full": NASTY, "music_flamingo_note": NASTY}
    info["music_flamingo_provenance"] = {"full": {"model": NASTY, "edited_by": NASTY}}
    audio.with_suffix(".INFO").write_text(json.dumps(info))
    page = open_page(start_review(tmp_path / "music"))
    expect(page.locator(".caption .text").first).to_contain_text("<script>window.hacked")
    expect(page.locator("#detail h2")).to_contain_text("<img src=x")
    press(page, "p", "r")
    page.keyboard.type("hacked")
    press(page, "Enter")
    expect(page.locator("#replace li p")).to_contain_text("<script>")
    assert page.evaluate("window.hacked") is None
    assert page.locator("#detail script, #detail img, #replace img, #list img").count() == 0


def test_measured_contradictions_are_marked(open_page: OpenPage, start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 2)
    tempo = {"bpm": 97.3, "confidence": 0.4, "alternatives": []}
    measured = {"version": 1, "seconds": 1.0, "silence": 0.0, "tempo": tempo, "key": None}
    merge_sidecar(sidecars(root)[0], {"music_flamingo_measured": measured})
    page = open_page(start_review(root))
    expect(page.locator("mark")).to_contain_text("80")
    expect(page.locator("mark")).to_contain_text("measured 97.3 BPM")
    expect(page.locator(".facts")).to_contain_text("97.3 BPM")
    expect(page.locator(".facts td.wrong")).to_have_text("80 BPM")


def test_a_wrong_tempo_is_corrected_with_one_key(
    open_page: OpenPage, start_review: StartReview, tmp_path: Path
) -> None:
    root = make_dataset(tmp_path, 2)
    file = sidecars(root)[0]
    tempo = {"bpm": 97.3, "confidence": 0.4, "alternatives": [194.6, 48.6]}
    measured = {"version": 1, "seconds": 1.0, "silence": 0.0, "tempo": tempo, "key": None}
    merge_sidecar(file, {"music_flamingo_measured": measured})
    before = file.read_bytes()
    page = open_page(start_review(root))
    expect(page.locator(".facts")).to_contain_text("97.3 or 194.6 or 48.6 BPM")
    expect(page.get_by_role("button", name="Correct tempo 80 → 97")).to_be_visible()
    press(page, "c")
    expect(page.locator("#status")).to_contain_text("Corrected tempo 80 → 97")
    expect(page.locator("mark")).to_have_count(0)
    info = read_sidecar(file)
    assert info["music_flamingo_full"] == "A calm jazz piece no. 00 at 97 BPM in F# minor with piano."
    assert info["music_flamingo_provenance"]["full"]["edited"] is True
    press(page, "c")
    expect(page.locator("#status")).to_contain_text("Nothing to correct")
    press(page, "z")
    expect(page.locator("#status")).to_contain_text("Undone: correct")
    assert file.read_bytes() == before


def test_playing_goes_on_with_the_next_track(open_page: OpenPage, start_review: StartReview, tmp_path: Path) -> None:
    """Also where the first one has ended by itself; not where a person has paused it."""
    sound = "document.querySelector('audio')"
    page = open_page(start_review(make_dataset(tmp_path, 3)))
    page.evaluate(f"{sound}.muted = true")
    press(page, " ")
    until(page, f"{sound}.ended")
    press(page, "Enter")
    until(page, f"!{sound}.paused && {sound}.currentTime > 0.1")
    press(page, " ", "j")
    expect(page.locator("#detail h2")).to_contain_text("track 01")
    page.wait_for_timeout(300)
    assert page.evaluate(f"{sound}.paused")


def test_hidden_keys_stay_hidden(open_page: OpenPage, start_review: StartReview, tmp_path: Path) -> None:
    page = open_page(start_review(make_dataset(tmp_path, 2)))
    legend, detail = page.locator("#legend"), page.locator("#detail")
    expect(legend).to_be_visible()
    below, above = legend.bounding_box(), detail.bounding_box()
    assert below
    assert above
    assert above["y"] + above["height"] <= below["y"] + 1, "the keys cover nothing"
    press(page, "?")
    page.reload()
    page.wait_for_selector(".caption")
    expect(legend).to_be_hidden()
    press(page, "?")
    page.reload()
    expect(legend).to_be_visible()


def test_the_next_tracks_are_in_view(open_page: OpenPage, start_review: StartReview, tmp_path: Path) -> None:
    page = open_page(start_review(make_dataset(tmp_path, 30)), viewport={"width": 1280, "height": 800})
    press(page, *"j" * 15)
    expect(page.locator("#detail h2")).to_contain_text("disc 1/track 01")
    bottom = "e => e.getBoundingClientRect().bottom"
    assert page.locator("#row-17").evaluate(bottom) <= page.locator("#list").evaluate(bottom)


def test_the_editor_is_as_high_as_its_caption(open_page: OpenPage, start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 1)
    merge_sidecar(sidecars(root)[0], {"music_flamingo_full": "Piano and strings play a slow tune. " * 25})
    page = open_page(start_review(root))
    press(page, "e")
    field = "document.querySelector('textarea[data-editor]')"
    assert page.evaluate(f"{field}.scrollHeight - {field}.clientHeight") <= 2
    page.keyboard.type(" ~90")
    expect(page.locator(".preview")).to_have_text(re.compile("Saved as: … .*play a slow tune. about 90$"))
    expect(page.locator(".preview ins")).to_have_text("about 90")


def test_a_touched_next_track_is_shown_from_its_top(
    open_page: OpenPage, start_review: StartReview, tmp_path: Path
) -> None:
    root = make_dataset(tmp_path, 5)
    page = open_page(start_review(root), viewport={"width": 390, "height": 400}, has_touch=True)
    page.locator(".caption").last.scroll_into_view_if_needed()
    page.locator(".actions .primary").tap()
    at(page, 1)
    until(page, "Math.abs(document.querySelector('#detail').getBoundingClientRect().top) < 5")
    page.get_by_role("button", name="Next track").tap()
    expect(page.locator("#detail h2")).to_contain_text("track 04")


def test_a_read_only_page_offers_no_change(open_page: OpenPage, start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 3)
    before = [file.read_bytes() for file in sidecars(root)]
    page = open_page(start_review(root, "--read-only"))
    expect(page.get_by_role("button", name=re.compile("Approve|Edit|Exclude"))).to_have_count(0)
    press(page, "Enter", "x", "e", "n", "a", "z", "r")
    page.wait_for_timeout(500)
    assert [file.read_bytes() for file in sidecars(root)] == before
    assert page.locator("dialog[open]").count() == 0


# -- everybody can use it -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, which npm downloads: it is too large to be part of the project."""
    npm = shutil.which("npm")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm or "npm", "pack", "--silent", "--pack-destination", str(folder), AXE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120) if npm else None
    if done is None or done.returncode:
        reason = f"NOT RUN: {AXE} could not be downloaded with npm"
        if os.environ.get("MUSICFLAMINGO_REQUIRE_AXE"):
            pytest.fail(reason)
        pytest.skip(reason)
    shutil.unpack_archive(next(folder.glob("*.tgz")), folder)
    return (folder / "package" / "axe.min.js").read_text(encoding="utf-8")


def faults(page: Page, axe: str) -> list[str]:
    """The serious faults that axe finds; it is evaluated, not loaded, so that the page's own policy stays."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{each['id']}: {[node['target'] for node in each['nodes']]} {each['nodes'][0]['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_serious_fault(
    open_page: OpenPage, start_review: StartReview, tmp_path: Path, axe: str, width: int, scheme: Any
) -> None:
    root = make_dataset(tmp_path, 30)
    first = sidecars(root)[0]
    merge_sidecar(
        first, {"music_flamingo_note": "a note", "music_flamingo_check": {"score": 0.2, "reasons": ["tempo"]}}
    )
    page = open_page(start_review(root), viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert faults(page, axe) == []
    press(page, "x", "p")
    at(page, 1)
    assert faults(page, axe) == [], "an excluded track in the list"
    press(page, "e")
    assert faults(page, axe) == [], "with the editor"
    press(page, "Escape", "g")
    assert faults(page, axe) == [], "with the question"
    press(page, "Escape", "r")
    page.keyboard.type("calm")
    press(page, "Enter")
    page.locator("#replace li").first.wait_for()
    assert faults(page, axe) == [], "with the dialog"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_the_page_fits_every_width(
    open_page: OpenPage, start_review: StartReview, tmp_path: Path, width: int, scheme: Any
) -> None:
    root = make_dataset(tmp_path, 5)
    merge_sidecar(sidecars(root)[0], {"music_flamingo_full": f"{'Unbreakable' * 30} and a normal end."})
    page = open_page(start_review(root), viewport={"width": width, "height": 900}, color_scheme=scheme)
    press(page, "p", "e")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "[...document.querySelectorAll('#detail *')].every(e => e.getBoundingClientRect().right <= innerWidth)"
    )
    front, back = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    assert contrast(front, back) >= 7
    if shots := os.environ.get("MUSICFLAMINGO_SCREENSHOTS"):
        press(page, "Escape")
        page.screenshot(path=Path(shots) / f"review-{width}-{scheme}.png")


def test_the_list_and_the_keys_are_named_for_screen_readers(
    open_page: OpenPage, start_review: StartReview, tmp_path: Path
) -> None:
    root = make_dataset(tmp_path, 3)
    page = open_page(start_review(root))
    expect(page.get_by_role("listbox", name="Tracks")).to_be_focused()
    expect(page.locator("#list [role=option]")).to_have_count(3)
    active = page.get_by_role("listbox").get_attribute("aria-activedescendant")
    expect(page.locator(f"#{active}")).to_have_attribute("aria-selected", "true")
    expect(page.locator(f"#{active}")).to_have_attribute("aria-setsize", "3")
    press(page, "Enter")
    expect(page.locator("#status")).to_contain_text("Approved disc 0/track 00")
    expect(page.get_by_role("option", name=re.compile("track 00.*approved"))).to_have_count(1)
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "33")


# -- the model is asked again ---------------------------------------------------------------------------


@pytest.mark.real
def test_the_model_is_asked_again_by_keyboard(
    open_page: OpenPage, start_review: StartReview, tmp_path: Path, real_llama_dir: Path, random_models: Path
) -> None:
    root = make_dataset(tmp_path, 2)
    (file, other) = sidecars(root)
    before, untouched = file.read_bytes(), other.read_bytes()
    (root / "musicflamingo-prompts.yaml").write_text(
        "presets:\n  full: {prompt: 'Say it.', max_tokens: 12, min_words: 1}\n"
    )
    options = [
        "--model",
        "F32",
        "--models-dir",
        str(random_models),
        "--llama-dir",
        str(real_llama_dir),
        "--threads",
        "1",
    ]
    page = open_page(start_review(root, *options))
    for seed, key in (("7", "o"), ("8", "t")):
        press(page, "g", "Control+a")
        page.keyboard.type(seed)
        press(page, "Enter")
        answer = page.locator(".ask .answer")
        expect(answer).to_have_count(1, timeout=90_000)
        expect(page.locator(".ask")).to_contain_text(f"seed {seed}")
        text = answer.inner_text()
        assert file.read_bytes() == before, "nothing is saved before the person takes it"
        press(page, key)
        expect(page.locator(".ask")).to_have_count(0)
    info = read_sidecar(file)
    made = info["music_flamingo_provenance"]["full"]
    assert (info["music_flamingo_full"], made["seed"], made["approved"], made["toy"]) == (text, 8, True, True)
    assert "edited" not in made
    assert other.read_bytes() == untouched
    press(page, "z")
    expect(page.locator("#status")).to_contain_text("Undone: take the new full")
    assert file.read_bytes() == before
