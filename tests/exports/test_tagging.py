"""`tags`: real files of every format are tagged, keep their audio, and get their old tags back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import av
import mutagen.id3
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from musicflamingo_cli.audio.decoding import open_source
from musicflamingo_cli.audio.tags import stated
from musicflamingo_cli.cli import app
from musicflamingo_cli.exports.file_tags import TagField, TaggedFile, audio_digest
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.review import edits
from musicflamingo_cli.review.history import History
from musicflamingo_cli.review.library import Library
from musicflamingo_cli.sidecars.checks import check_result
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.sidecars.segments import cut_audio, segments_of
from musicflamingo_cli.sidecars.staleness import CaptionSettings, CaptionState, state_of
from musicflamingo_cli.system.identity import file_identity, is_replaced
from musicflamingo_cli.trust.measured import as_json
from musicflamingo_cli.trust.measuring import measure_track
from musicflamingo_cli.trust.scan import check_dataset
from tests.conftest import tone
from tests.trust.test_check import measurement

CAPTION = "A calm piece at 97 BPM in F# minor, naïve."
RATE = 44_100
WRITTEN_BY_FFMPEG = {
    "a.m4a": "alac",
    "b.m4a": "aac",
    "a.wma": "wmav2",
    "a.wv": "wavpack",
    "a.tta": "tta",
    "a.opus": "libopus",
}
FORMATS = ["a.mp3", "a.flac", "a.wav", "a.aiff", "a.ogg", *WRITTEN_BY_FFMPEG]


def make(path: Path) -> Path:
    """A file with two seconds of sound in the format of its ending."""
    sound = tone(2.0, rate=RATE, channels=2)
    if codec := WRITTEN_BY_FFMPEG.get(path.name):
        rate = 48_000 if codec == "libopus" else RATE
        with av.open(path, "w") as container:
            stream: Any = container.add_stream(codec, rate=rate, layout="stereo")
            if codec == "wmav2":
                stream.bit_rate = 128_000
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T.astype("float32")), "fltp", "stereo")
            frame.sample_rate = RATE
            resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=rate, frame_size=1024)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
    else:
        soundfile.write(path, sound, RATE)
    return path


def decoded(path: Path) -> np.ndarray:
    with open_source(path) as source:
        return np.concatenate(list(source.blocks))


def sidecar(audio: Path, **more: Any) -> Path:
    info = {"other": 0.10, "music_flamingo_full": CAPTION, **more}
    file = audio.with_suffix(".INFO")
    file.write_text(json.dumps(info, indent=2))
    return file


def tags(folder: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["tags", str(folder), *options])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("options", [(), ("--custom",)])
def test_every_format_is_tagged_and_gets_its_tags_back(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    audio = make(tmp_path / name)
    field = TagField.CUSTOM if options else TagField.COMMENT
    old = TaggedFile(audio)
    old.set(field, ["what was there"])
    old.save()
    file, before, whole = sidecar(audio), decoded(audio), audio.read_bytes()
    info_before = file.read_bytes()
    done = tags(tmp_path, "--bpm", "--key", *options)
    assert done.exit_code == 0, done.output
    now = TaggedFile(audio)
    assert now.get(field) == [CAPTION]
    assert (now.get(TagField.BPM), now.get(TagField.KEY)) == (["97"], ["F# minor"])
    assert audio.read_bytes() != whole
    assert np.array_equal(decoded(audio), before)
    assert read_sidecar(file)["music_flamingo_tags_backup"]["fields"] == {
        field: ["what was there"],
        "bpm": [],
        "key": [],
    }
    assert "1 unchanged" in tags(tmp_path, "--bpm", "--key", *options).output
    assert tags(tmp_path, "--undo").exit_code == 0
    now = TaggedFile(audio)
    assert [now.get(each) for each in (field, TagField.BPM, TagField.KEY)] == [["what was there"], [], []]
    assert np.array_equal(decoded(audio), before)
    assert file.read_bytes() == info_before
    assert {path.name for path in tmp_path.iterdir()} == {name, file.name}


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    audio = make(tmp_path / "a.flac")
    file = sidecar(audio)
    before = audio.read_bytes(), file.read_bytes()
    done = tags(tmp_path, "--dry-run")
    assert f"comment = {CAPTION}" in done.output
    assert (audio.read_bytes(), file.read_bytes()) == before


def test_other_tags_times_and_permissions_stay(tmp_path: Path) -> None:
    audio = make(tmp_path / "a.mp3")
    id3 = mutagen.File(audio)
    id3.add_tags()
    id3.tags.add(mutagen.id3.TIT2(encoding=3, text=["Title"]))
    id3.tags.add(mutagen.id3.COMM(encoding=3, lang="deu", desc="x", text=["another comment"]))
    id3.save(v2_version=3)
    audio.chmod(0o640)
    os.utime(audio, (1_000_000_000, 1_000_000_000))
    sidecar(audio)
    assert tags(tmp_path).exit_code == 0
    found = mutagen.File(audio)
    assert found.tags.version == (2, 3, 0)
    assert found.tags["TIT2"].text == ["Title"]
    assert found.tags["COMM:x:deu"].text == ["another comment"]
    assert (audio.stat().st_mode & 0o777, audio.stat().st_mtime) == (0o640, 1_000_000_000)


YEAR_AND_CREDITS = {
    3: [
        mutagen.id3.TYER(encoding=0, text=["1999"]),
        mutagen.id3.TDAT(encoding=0, text=["3112"]),
        mutagen.id3.TORY(encoding=0, text=["1998"]),
        mutagen.id3.IPLS(encoding=1, people=[["producer", "Zoë"]]),
        mutagen.id3.TPE1(encoding=0, text=["One", "Two"]),
        mutagen.id3.RVAD(adjustments=[1, 1]),
    ],
    4: [
        mutagen.id3.TDRC(encoding=3, text=["1999-12-31"]),
        mutagen.id3.TIPL(encoding=3, people=[["producer", "Zoë"]]),
        mutagen.id3.TYER(encoding=3, text=["1999"]),  # of 2.3, but there
    ],
}


@pytest.mark.parametrize("version", YEAR_AND_CREDITS)
@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.aiff"])
def test_other_frames_stay_those_of_their_version(tmp_path: Path, name: str, version: int) -> None:
    audio = make(tmp_path / name)
    file = mutagen.File(audio)
    file.add_tags()
    for frame in YEAR_AND_CREDITS[version]:
        file.tags.add(frame)
    file.save(v2_version=version, v23_sep=None)
    sidecar(audio)

    def frames() -> list[str]:
        read = type(file)(audio, translate=False).tags
        assert read.version == (2, version, 0)
        return sorted(repr(frame) for key, frame in read.items() if not key.startswith("COMM"))

    before = frames()
    assert len(before) == len(YEAR_AND_CREDITS[version])
    for options in ((), ("--undo",)):
        assert tags(tmp_path, *options).exit_code == 0
        assert frames() == before


def test_a_tag_of_id3_22_becomes_one_of_23(tmp_path: Path) -> None:
    audio = make(tmp_path / "a.mp3")
    title = b"TT2\x00\x00\x06\x00Title"
    audio.write_bytes(b"ID3\x02\x00\x00\x00\x00\x00" + bytes([len(title)]) + title + audio.read_bytes())
    sidecar(audio)
    assert tags(tmp_path).exit_code == 0
    found = mutagen.File(audio)
    assert (found.tags.version, found.tags["TIT2"].text) == ((2, 3, 0), ["Title"])


def test_tagged_audio_makes_no_caption_outdated(tmp_path: Path) -> None:
    audio = make(tmp_path / "a.flac")
    made = {"full": {"audio": file_identity(audio), "model": "m", "template": Preset("full", "x").template_hash}}
    file = sidecar(audio, music_flamingo_provenance=made)
    for option in ((), ("--undo",)):
        assert tags(tmp_path, *option).exit_code == 0
        info = read_sidecar(file)
        assert state_of(info, Preset("full", "x"), CaptionSettings(), audio) == CaptionState.CAPTIONED
    make(audio).touch()
    with audio.open("ab") as other:
        other.write(b"replaced")
    assert state_of(info, Preset("full", "x"), CaptionSettings(), audio) == CaptionState.OUTDATED


def test_tagged_audio_makes_no_segment_outdated(tmp_path: Path) -> None:
    audio = make(tmp_path / "a.flac")
    identity = file_identity(audio)
    segment = {"start": 0, "end": 5, "captions": {"full": "It."}, "provenance": {"full": {"audio": identity}}}
    made = {"segments": {"audio": identity}}
    others = [{"start": 5, "end": 9}, "of another tool"]
    file = sidecar(audio, music_flamingo_provenance=made, music_flamingo_segments=[segment, *others])
    for option in ((), ("--undo",)):
        assert tags(tmp_path, *option).exit_code == 0
        info = read_sidecar(file)
        assert not is_replaced(audio, cut_audio(info))
        assert not is_replaced(audio, segments_of(info)[0].provenance["full"]["audio"])
        assert info["music_flamingo_segments"][1:] == others


def test_tags_keep_the_approval_of_a_track(tmp_path: Path) -> None:
    audio = make(tmp_path / "a.flac")
    made = {"full": {"audio": file_identity(audio)}}
    file = sidecar(audio, music_flamingo_provenance=made, music_flamingo_approved=True)
    for option in ("--approved", "--undo"):
        assert "1 files changed" in tags(tmp_path, option).output
        assert read_sidecar(file)["music_flamingo_approved"] is True


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.wav"])
def test_own_tags_are_no_evidence_for_the_caption(tmp_path: Path, name: str) -> None:
    audio = make(tmp_path / name)
    old = TaggedFile(audio)
    old.set(TagField.KEY, ["Am"])
    old.save()
    file = sidecar(audio)
    assert tags(tmp_path, "--bpm", "--key").exit_code == 0
    assert stated(audio, {}) == {"bpm": "97", "key": "Am"}
    assert stated(audio, read_sidecar(file)) == {"key": "Am"}
    mine = TaggedFile(audio)
    mine.set(TagField.BPM, ["104"])  # by another tool, later
    mine.save()
    assert stated(audio, read_sidecar(file)) == {"bpm": "104", "key": "Am"}


def test_tags_follow_a_later_measurement(tmp_path: Path) -> None:
    file = sidecar(audio := make(tmp_path / "a.flac"))
    tags(tmp_path, "--bpm", "--key")
    assert (TaggedFile(audio).get(TagField.BPM), TaggedFile(audio).get(TagField.KEY)) == (["97"], ["F# minor"])
    file.write_text(json.dumps({**read_sidecar(file), "music_flamingo_measured": as_json(measurement())}))
    tags(tmp_path, "--bpm", "--key")
    assert (TaggedFile(audio).get(TagField.BPM), TaggedFile(audio).get(TagField.KEY)) == (["95"], ["E minor"])
    tags(tmp_path, "--undo")
    assert (TaggedFile(audio).get(TagField.BPM), TaggedFile(audio).get(TagField.KEY)) == ([], [])


def test_an_unsure_measurement_is_no_tag(tmp_path: Path) -> None:
    file = sidecar(audio := make(tmp_path / "a.flac"))
    unsure = as_json(measurement(confidence=0.05, margin=0.09))
    file.write_text(json.dumps({**read_sidecar(file), "music_flamingo_measured": unsure}))
    tags(tmp_path, "--bpm", "--key")
    assert (TaggedFile(audio).get(TagField.BPM), TaggedFile(audio).get(TagField.KEY)) == (["97"], ["F# minor"])


def test_tags_outdate_no_check(tmp_path: Path) -> None:
    file = sidecar(audio := make(tmp_path / "a.flac"))
    file.write_text(json.dumps({**read_sidecar(file), "music_flamingo_measured": as_json(measure_track(audio))}))
    list(check_dataset(tmp_path))
    for option in ((), ("--undo",)):
        assert "1 files changed" in tags(tmp_path, *option).output
        assert check_result(read_sidecar(file)) is not None


def test_an_edit_while_a_file_is_tagged_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = make(tmp_path / "a.flac")
    file = sidecar(audio, music_flamingo_provenance={"full": {"audio": file_identity(audio)}})

    def edited_meanwhile(path: Path) -> str:
        entry = Library(tmp_path, ["full"])
        entry.scan()
        if not read_sidecar(file)["music_flamingo_provenance"]["full"].get("edited"):
            History(entry).apply("edit", entry.entries[0], edits.edit("full", "Mine.", edits.base_of(CAPTION)))
        return audio_digest(path)

    monkeypatch.setattr("musicflamingo_cli.exports.tagging.audio_digest", edited_meanwhile)
    assert tags(tmp_path).exit_code == 0
    made = read_sidecar(file)["music_flamingo_provenance"]["full"]
    assert (made["edited"], made["model_text"]) == (True, CAPTION)
    assert made["audio"] == file_identity(audio)


def test_a_field_that_was_changed_since_is_left(tmp_path: Path) -> None:
    audio = make(tmp_path / "a.flac")
    sidecar(audio)
    tags(tmp_path, "--bpm")
    mine = TaggedFile(audio)
    mine.set(TagField.COMMENT, ["my own, later"])
    mine.save()
    done = tags(tmp_path, "--undo")
    assert "changed since, and left as they are: comment" in done.output
    now = TaggedFile(audio)
    assert (now.get(TagField.COMMENT), now.get(TagField.BPM)) == (["my own, later"], [])


def test_a_new_caption_keeps_the_first_backup(tmp_path: Path) -> None:
    audio = make(tmp_path / "a.flac")
    file = sidecar(audio)
    tags(tmp_path)
    info = read_sidecar(file)
    file.write_text(json.dumps({**info, "music_flamingo_full": "Another caption now."}))
    tags(tmp_path)
    assert TaggedFile(audio).get(TagField.COMMENT) == ["Another caption now."]
    tags(tmp_path, "--undo")
    assert TaggedFile(audio).get(TagField.COMMENT) == []


def test_what_another_program_wrote_since_is_backed_up(tmp_path: Path) -> None:
    audio = make(tmp_path / "a.flac")
    sidecar(audio)
    tags(tmp_path)
    mine = TaggedFile(audio)
    mine.set(TagField.COMMENT, ["my own, later"])
    mine.save()
    tags(tmp_path)
    assert TaggedFile(audio).get(TagField.COMMENT) == [CAPTION]
    tags(tmp_path, "--undo")
    assert TaggedFile(audio).get(TagField.COMMENT) == ["my own, later"]


def test_what_is_left_out_and_why(tmp_path: Path) -> None:
    for name, more in (
        ("ok", {}),
        ("excluded", {"music_flamingo_excluded": True}),
        ("none", {"music_flamingo_full": ""}),
    ):
        sidecar(Path(shutil.copy(make(tmp_path / "a.flac"), tmp_path / f"{name}.flac")), **more)
    (tmp_path / "a.flac").unlink()
    (tmp_path / "text.mp3").write_text("no sound")
    sidecar(tmp_path / "text.mp3")
    make(tmp_path / "a.wav").rename(tmp_path / "linked.wav")
    os.link(tmp_path / "linked.wav", tmp_path.parent / f"{tmp_path.name}-other.wav")
    sidecar(tmp_path / "linked.wav")
    done = tags(tmp_path)
    assert done.exit_code == 1
    for reason in ("excluded in the review", "no caption", "several names", "text.mp3"):
        assert reason in done.output
    assert "1 files changed, 2 unchanged, 2 failed" in done.output
    assert tags(tmp_path, "--approved").output.count("not approved") == 4


def test_a_link_out_of_the_dataset_is_not_written(tmp_path: Path) -> None:
    outside = make(tmp_path / "a.flac")
    before = outside.read_bytes()
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.flac").symlink_to(outside)
    sidecar(tmp_path / "music" / "a.flac")
    assert "leads out of the dataset" in tags(tmp_path / "music").output
    assert outside.read_bytes() == before
    assert tags(tmp_path / "music", "--follow-links").exit_code == 0
    assert outside.read_bytes() != before
    assert (tmp_path / "music" / "a.flac").is_symlink()


def test_a_change_of_the_audio_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = make(tmp_path / "a.wav")
    file = sidecar(audio)
    before = audio.read_bytes(), file.read_bytes()

    def damaging(self: TaggedFile) -> None:
        data = bytearray(self._path.read_bytes())
        data[5000] ^= 1
        self._path.write_bytes(data)

    monkeypatch.setattr(TaggedFile, "save", damaging)
    assert "without a change of its audio" in tags(tmp_path).output
    assert (audio.read_bytes(), file.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_the_digest_is_of_the_audio_alone(tmp_path: Path) -> None:
    audio = make(tmp_path / "a.mp3")
    before = audio_digest(audio)
    tagged = TaggedFile(audio)
    tagged.set(TagField.COMMENT, ["x" * 5000])
    tagged.save()
    assert audio_digest(audio) == before
    soundfile.write(audio, tone(2.0, hertz=441, rate=RATE), RATE)
    assert audio_digest(audio) != before
