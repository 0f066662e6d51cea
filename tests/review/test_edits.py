"""What a person changes: through the server, into sidecars that belong to other tools as well."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.review import edits
from musicflamingo_cli.review.corrections import correct, corrections_of
from musicflamingo_cli.review.edits import ConflictError, Decision, base_of
from musicflamingo_cli.review.history import History
from musicflamingo_cli.review.library import Entry, Filter, Library, Sort
from musicflamingo_cli.review.replacing import Kind, Rewriting, decisions, preview
from musicflamingo_cli.sidecars.checks import basis_of
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.trust.known import known_of
from tests.review.conftest import Server, StartReview, make_dataset

OURS = re.compile(r'"music_flamingo_\w+": (?:\{.*?\n  \}|"[^"]*"|true|false)', re.DOTALL)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    found = Library(make_dataset(tmp_path / "music", 6), ["full", "structure"])
    found.scan()
    return found


def foreign(path: Path) -> str:
    """A sidecar's text without our keys."""
    return "".join(OURS.sub("", path.read_text(encoding="utf-8")).replace(",", "").split())


def bases(info: dict[str, Any]) -> dict[str, str]:
    return {preset: base_of(info.get(f"music_flamingo_{preset}")) for preset in ("full", "structure")}


def info_of_entry(library: Library, number: int) -> dict[str, Any]:
    return read_sidecar(library.entries[number].track.sidecar)


def test_an_edit_keeps_the_models_text_and_says_who(library: Library) -> None:
    entry, history = library.entries[0], History(library)
    before = info_of_entry(library, 0)
    history.apply("edit", entry, edits.edit("full", "First.", bases(before)["full"]))
    history.apply("edit", entry, edits.edit("full", "Second.", base_of("First.")))
    made = info_of_entry(library, 0)["music_flamingo_provenance"]["full"]
    assert made.pop("edited_at").endswith("+00:00")
    assert made == {
        "model": "m.gguf",
        "seed": 0,
        "edited": True,
        "edited_by": edits.user_name(),
        "model_text": before["music_flamingo_full"],
    }
    assert {Filter.EDITED, Filter.TO_DO} <= entry.flags
    assert library.select("second.") == [0]


def test_undo_and_redo_walk_the_whole_session(library: Library) -> None:
    """And undoing everything leaves the sidecars as they were, byte for byte."""
    history = History(library)
    files = [entry.track.sidecar for entry in library.entries]
    states = [[file.read_bytes() for file in files]]
    steps: list[tuple[int, Callable[[dict[str, Any]], Decision]]] = [
        (0, lambda info: edits.edit("full", "Mine.", bases(info)["full"])),
        (0, lambda info: edits.approve(bases(info), True)),
        (1, lambda info: edits.approve(bases(info), True, "full")),
        (1, lambda info: edits.approve(bases(info), True, "structure")),
        (0, lambda info: edits.edit("structure", "Mine, too.", bases(info)["structure"])),
        (2, lambda info: edits.exclude(True)),
        (2, lambda info: edits.note("too loud", base_of(""))),
        (2, lambda info: edits.exclude(False)),
        (3, lambda info: edits.edit("new_one", "There was none.", base_of(""))),
    ]
    for number, make in steps:
        assert history.apply("step", library.entries[number], make(info_of_entry(library, number)))
        states.append([file.read_bytes() for file in files])
    for state in reversed(states[:-1]):
        assert history.undo().conflicts == []
        assert [json.loads(file.read_bytes()) for file in files] == [json.loads(text) for text in state]
    assert [file.read_bytes() for file in files] == states[0]
    assert history.undo().changed == []
    for state in states[1:]:
        history.redo()
        assert [json.loads(file.read_bytes()) for file in files] == [json.loads(text) for text in state]
    assert history.redo().changed == []


def test_other_tools_keys_keep_every_byte(library: Library) -> None:
    history, entry = History(library), library.entries[0]
    before = foreign(entry.track.sidecar)
    history.apply("edit", entry, edits.edit("full", "Mine.", bases(info_of_entry(library, 0))["full"]))
    history.apply("note", entry, edits.note("a note", base_of("")))
    assert foreign(entry.track.sidecar) == before
    assert "1e400" in before


def test_approvals_of_captions_make_that_of_the_track(library: Library) -> None:
    history, entry = History(library), library.entries[0]
    for preset, is_whole in (("full", False), ("structure", True)):
        history.apply("approve", entry, edits.approve(bases(info_of_entry(library, 0)), True, preset))
        info = info_of_entry(library, 0)
        assert (info.get("music_flamingo_approved") is True) is is_whole
    history.apply("withdraw", entry, edits.approve(bases(info_of_entry(library, 0)), False, "full"))
    info = info_of_entry(library, 0)
    assert info["music_flamingo_approved"] is False
    assert info["music_flamingo_provenance"]["structure"] == {"approved": True}
    assert "approved" not in info["music_flamingo_provenance"]["full"]


def test_an_edit_ends_the_approval_of_its_caption_only(library: Library) -> None:
    history, entry = History(library), library.entries[0]
    history.apply("approve", entry, edits.approve(bases(info_of_entry(library, 0)), True))
    history.apply("edit", entry, edits.edit("full", "Mine.", bases(info_of_entry(library, 0))["full"]))
    info = info_of_entry(library, 0)
    assert info["music_flamingo_approved"] is False
    assert info["music_flamingo_provenance"]["structure"]["approved"] is True
    assert "approved" not in info["music_flamingo_provenance"]["full"]


def test_approving_what_one_has_not_seen_is_a_conflict(library: Library) -> None:
    history, entry = History(library), library.entries[0]
    seen = bases(info_of_entry(library, 0))
    merge_sidecar(entry.track.sidecar, {"music_flamingo_full": "A batch wrote this."})
    with pytest.raises(ConflictError):
        history.apply("approve", entry, edits.approve(seen, True))
    seen = bases(info_of_entry(library, 0))
    merge_sidecar(entry.track.sidecar, {"music_flamingo_brief": "And this."})
    with pytest.raises(ConflictError):
        history.apply("approve", entry, edits.approve(seen, True))
    assert "music_flamingo_approved" not in info_of_entry(library, 0)


def test_undo_leaves_what_others_changed_since(library: Library) -> None:
    history, entry = History(library), library.entries[0]
    history.apply("edit", entry, edits.edit("full", "Mine.", bases(info_of_entry(library, 0))["full"]))
    merge_sidecar(entry.track.sidecar, {"music_flamingo_full": "Theirs, later."})
    done = history.undo()
    assert (done.changed, done.conflicts) == ([], [0])
    assert info_of_entry(library, 0)["music_flamingo_full"] == "Theirs, later."


@pytest.mark.parametrize(
    ("rewriting", "before", "after"),
    [
        (Rewriting(Kind.REPLACE, "piano", "organ"), "A Piano piece, pianos.", "A organ piece, organs."),
        (Rewriting(Kind.REPLACE, "piano", "organ", match_case=True), "A Piano, piano.", "A Piano, organ."),
        (Rewriting(Kind.REPLACE, "piano", "organ", whole_words=True), "piano, pianos", "organ, pianos"),
        (Rewriting(Kind.REPLACE, "a.b(", r"\1 {x}"), "see a.b( here", "see /1 (x) here"),
        (Rewriting(Kind.REPLACE, "slow ", ""), "A slow slow song", "A song"),
        (Rewriting(Kind.ADD_IN_FRONT, "mytrigger,"), "A song.", "mytrigger, A song."),
        (Rewriting(Kind.ADD_IN_FRONT, "mytrigger,"), "mytrigger, A song.", "mytrigger, A song."),
        (Rewriting(Kind.ADD_AT_END, "In my style."), "A song.", "A song. In my style."),
        (Rewriting(Kind.REMOVE, "mytrigger"), "MyTrigger, A song.", "A song."),
        (Rewriting(Kind.REMOVE, "In my style."), "A song. In my style.", "A song."),
        (Rewriting(Kind.REMOVE, "song"), "A song by me", "A song by me"),
        (Rewriting(Kind.REMOVE, "pop"), "Popular piano, of synthpop", "Popular piano, of synthpop"),
        (Rewriting(Kind.ADD_IN_FRONT, "pop"), "popular piano", "pop popular piano"),
        (Rewriting(Kind.ADD_AT_END, "pop"), "A piece of synthpop", "A piece of synthpop pop"),
    ],
)
def test_captions_are_rewritten(rewriting: Rewriting, before: str, after: str) -> None:
    assert rewriting.rewriter()(before) == after


def test_a_replacement_changes_what_its_preview_showed(library: Library) -> None:
    history, rewriting = History(library), Rewriting(Kind.REPLACE, "calm", "wild", presets=("full",))
    found = preview(library, range(6), rewriting, most=2)["items"]
    assert [item["id"] for item in found] == [0, 1, 2, 3, 4, 5]
    assert [item.get("after", "")[:12] for item in found] == ["A wild jazz ", "A wild jazz ", "", "", "", ""]
    merge_sidecar(library.entries[3].track.sidecar, {"music_flamingo_full": "Calm, but changed since."})
    kept = [item for item in found if item["id"] != 5]
    done = history.apply_all("replace", decisions(kept, rewriting))
    assert (done.changed, done.conflicts) == ([0, 1, 2, 4], [3])
    texts = [info_of_entry(library, number)["music_flamingo_full"] for number in range(6)]
    assert [text[:6] for text in texts] == ["A wild", "A wild", "A wild", "Calm, ", "A wild", "A calm"]
    assert info_of_entry(library, 0)["music_flamingo_provenance"]["full"]["edited"] is True
    assert history.undo().changed == [0, 1, 2, 4], "one step"
    assert "wild" not in "".join(info_of_entry(library, number)["music_flamingo_full"] for number in range(6))


def test_a_replacement_is_undone_though_one_track_failed(library: Library) -> None:
    history, rewriting = History(library), Rewriting(Kind.REPLACE, "calm", "wild", presets=("full",))
    found = preview(library, range(6), rewriting, most=2)["items"]
    broken = library.entries[2].track.sidecar
    whole = broken.read_text()
    broken.write_text("{")
    done = history.apply_all("replace", decisions(found, rewriting))
    assert (done.changed, done.conflicts) == ([0, 1, 3, 4, 5], [2])
    broken.write_text(whole)
    library.entries[1].track.sidecar.write_text("{")
    done = history.undo()
    assert (done.changed, done.conflicts) == ([0, 3, 4, 5], [1])
    assert "calm" in info_of_entry(library, 5)["music_flamingo_full"]


def test_filters_search_and_order(library: Library) -> None:
    history = History(library)
    history.apply("x", library.entries[1], edits.exclude(True))
    history.apply("x", library.entries[2], edits.approve(bases(info_of_entry(library, 2)), True))
    basis = basis_of(info_of_entry(library, 4))
    check = {"score": 0.1, "reasons": ["tempo contradicted"], "basis": basis}
    merge_sidecar(library.entries[4].track.sidecar, {"music_flamingo_check": check})
    merge_sidecar(library.entries[5].track.sidecar, {"music_flamingo_structure": ""})
    library.entries[3].track.sidecar.write_text("{")
    for entry in library.entries:
        library.refresh(entry)
    expected = {
        Filter.EXCLUDED: [1],
        Filter.APPROVED: [2],
        Filter.DOUBTFUL: [4],
        Filter.FAILED: [3],
        Filter.MISSING: [3, 5],
    }
    for only, numbers in expected.items():
        assert library.select(only=only) == numbers
    assert library.select(sort=Sort.DOUBT) == [3, 4, 5, 0, 1, 2]
    assert library.select("PIECE jazz") == [0, 1, 2, 4, 5]
    assert library.select("disc 1/") == [3, 4, 5]
    assert library.counts()["to do"] == 4
    merge_sidecar(library.entries[4].track.sidecar, {"music_flamingo_check": {"score": float("nan"), "basis": basis}})
    library.refresh(library.entries[4])
    assert library.entries[4].doubt is None


def wrong_tempo(library: Library, bpm: float, confidence: float, **more: Any) -> Entry:
    """A track whose caption claims 80 BPM, with a measurement."""
    entry = library.entries[0]
    tempo = {"bpm": bpm, "confidence": confidence, "alternatives": []}
    measured = {"version": 1, "seconds": 1.0, "silence": 0.0, "tempo": tempo, "key": None}
    merge_sidecar(entry.track.sidecar, {"music_flamingo_measured": measured, **more})
    return entry


def test_corrections_change_what_a_sure_measurement_contradicts(library: Library) -> None:
    entry = wrong_tempo(library, 97.3, 0.4, music_flamingo_structure="Four bars at 80 BPM.", music_flamingo_lyrics="80")
    history, info = History(library), info_of_entry(library, 0)
    assert corrections_of(info, known_of(info, entry.track.audio)).keys() == {"full", "structure"}
    history.apply("correct", entry, correct(bases(info), entry.track.audio, library.presets))
    now = info_of_entry(library, 0)
    assert now["music_flamingo_full"] == "A calm jazz piece no. 00 at 97 BPM in F# minor with piano."
    assert now["music_flamingo_structure"] == "Four bars at 97 BPM."
    made = now["music_flamingo_provenance"]
    assert all(made[preset]["edited"] is True for preset in ("full", "structure"))
    assert made["full"]["model_text"] == info["music_flamingo_full"]
    history.undo()
    assert info_of_entry(library, 0) == info


@pytest.mark.parametrize(("bpm", "confidence"), [(97.3, 0.08), (160.0, 0.9), (80.4, 0.9)])
def test_what_is_unsure_or_no_contradiction_is_not_corrected(library: Library, bpm: float, confidence: float) -> None:
    entry = wrong_tempo(library, bpm, confidence)
    info = info_of_entry(library, 0)
    assert corrections_of(info, known_of(info, entry.track.audio)) == {}
    assert not History(library).apply("correct", entry, correct(bases(info), entry.track.audio, library.presets))


def test_a_correction_of_what_one_has_not_seen_is_a_conflict(library: Library) -> None:
    entry = wrong_tempo(library, 97.3, 0.4)
    seen = bases(info_of_entry(library, 0))
    merge_sidecar(entry.track.sidecar, {"music_flamingo_full": "Another one at 80 BPM."})
    with pytest.raises(ConflictError):
        History(library).apply("correct", entry, correct(seen, entry.track.audio, library.presets))


def test_changes_from_outside_are_followed(start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 3)
    server = start_review(root).enter()
    revision = server.get("/api/order").json()["revision"]
    sidecar = sorted(root.rglob("*.INFO"))[1]
    merge_sidecar(sidecar, {"music_flamingo_full": "Written by a batch."})
    deadline = time.monotonic() + 15
    rows: list[Any] = []
    while not rows and time.monotonic() < deadline:
        time.sleep(0.1)
        rows = server.get(f"/api/changes?since={revision}").json()["rows"]
    assert [row["id"] for row in rows] == [1]
    assert server.caption(1)["text"] == "Written by a batch."


def test_two_reviews_show_each_other_and_lose_nothing(start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 2)
    one, other = start_review(root).enter(), start_review(root).enter()
    assert one.get("/api/changes?since=0&open=0").json()["elsewhere"] == ""
    assert edits.user_name() in other.get("/api/changes?since=0&open=0").json()["elsewhere"]
    assert other.get("/api/changes?since=0&open=1").json()["elsewhere"] == ""
    base = one.caption(0)["base"]
    assert one.post("/api/tracks/0/edit", {"preset": "full", "text": "One's.", "base": base}).status == 200
    lost = other.post("/api/tracks/0/edit", {"preset": "full", "text": "Other's.", "base": base})
    assert (lost.status, lost.json()["conflict"]["theirs"]) == (409, "One's.")
    assert other.post("/api/tracks/0/note", {"text": "a note", "base": base_of("")}).status == 200
    assert one.interrupt() == 0
    assert other.get("/api/changes?since=0&open=0").json()["elsewhere"] == ""
    assert other.interrupt() == 0
    assert [path.name for path in root.rglob(".*")] == [], "no claim is left"


# -- nothing is lost ------------------------------------------------------------------------------------


def save_until_gone(server: Server, saved: dict[int, str]) -> None:
    """Save captions as fast as the server answers, noting what it confirmed."""
    for count in range(100_000):
        number = count % 5
        base = base_of(saved[number])
        text = f"Saved {count}."
        saved[10 + number] = text  # sent; whether it arrived is not known if the server dies now
        try:
            answer = server.post(f"/api/tracks/{number}/edit", {"preset": "full", "text": text, "base": base})
        except OSError:
            return
        assert answer.status == 200
        saved[number] = text


@pytest.mark.slow
def test_kills_in_the_middle_of_saves_lose_nothing(start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 5)
    files = sorted(root.rglob("*.INFO"))
    others = [foreign(file) for file in files]
    saves = 0
    for kill in range(12):
        server = start_review(root).enter()
        saved = {number: read_sidecar(file)["music_flamingo_full"] for number, file in enumerate(files)}
        worker = threading.Thread(target=save_until_gone, args=(server, saved))
        worker.start()
        time.sleep(0.15 + 0.041 * kill)
        server.process.send_signal(signal.SIGKILL)
        worker.join(timeout=30)
        for number, file in enumerate(files):
            assert read_sidecar(file)["music_flamingo_full"] in (saved[number], saved.get(10 + number))
            saves += saved.get(10 + number) is not None
    assert saves > 20
    assert [foreign(file) for file in files] == others
    server = start_review(root).enter()
    assert server.post("/api/tracks/0/note", {"text": "still works", "base": base_of("")}).status == 200


BATCH = """
import sys
from pathlib import Path
from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.merge import read_sidecar
from tests.fakes.engines import REAL_PAIR, ScriptedEngine
presets = [Preset("full", "Describe it."), Preset("structure", "Describe it."), Preset("mood", "Describe it.")]
counter = iter(range(10**9))
engine = ScriptedEngine(lambda *_: f"A warm track number {next(counter)} of the batch.")
captioner = Captioner(engine, REAL_PAIR, Policy(overwrite=True))
print("ready", flush=True)
for _ in range(4):
    for track in find_tracks(Path(sys.argv[1])):
        outcome = captioner.caption(track, presets, read_sidecar(track.sidecar), save=True)
        assert not outcome.failures, outcome.failures
"""


@pytest.mark.slow
def test_a_batch_and_a_person_write_at_the_same_time(start_review: StartReview, tmp_path: Path) -> None:
    """The batch writes every sidecar four times; each confirmed edit stands, and every other caption of the batch."""
    root = make_dataset(tmp_path, 12)
    server = start_review(root).enter()
    batch = subprocess.Popen([sys.executable, "-c", BATCH, str(root)], stdout=subprocess.PIPE, text=True)
    assert batch.stdout
    assert batch.stdout.readline() == "ready\n"
    confirmed: dict[int, str] = {}
    conflicts = 0
    while batch.poll() is None or len(confirmed) < 12:
        number = (len(confirmed) + conflicts) % 12
        base = base_of(confirmed[number]) if number in confirmed else server.caption(number)["base"]
        text = f"A person wrote this, edit {len(confirmed)} after {conflicts}."
        answer = server.post(f"/api/tracks/{number}/edit", {"preset": "full", "text": text, "base": base})
        assert answer.status in (200, 409), answer.body
        if answer.status == 200:
            confirmed[number] = text
        else:
            assert number not in confirmed, "the batch replaced an edited caption"
            conflicts += 1
    assert batch.wait() == 0
    batch.stdout.close()
    for number, file in enumerate(sorted(root.rglob("*.INFO"))):
        info = read_sidecar(file)
        assert info["music_flamingo_full"] == confirmed[number]
        assert info["music_flamingo_structure"].endswith("of the batch.")
        assert info["music_flamingo_mood"].endswith("of the batch.")
        assert info["music_flamingo_provenance"]["mood"]["model"] == REAL_NAME
        assert info["bpm"] == float("inf")
        assert info["zuletzt"] == "é"


REAL_NAME = "music-flamingo-hf.Q6_K.gguf"


def test_a_sidecar_that_cannot_be_written_is_an_error(start_review: StartReview, tmp_path: Path) -> None:
    root = make_dataset(tmp_path, 2)
    sidecar = sorted(root.rglob("*.INFO"))[0]
    shutil.copy(sidecar, tmp_path / "copy")
    server = start_review(root).enter()
    base = server.caption(0)["base"]
    sidecar.chmod(0o444)
    answer = server.post("/api/tracks/0/edit", {"preset": "full", "text": "Mine.", "base": base})
    assert answer.status == 422
    assert "chmod u+w" in answer.body.decode()
    assert sidecar.read_bytes() == (tmp_path / "copy").read_bytes()
