"""Which wrong numbers `check` finds: songs of the synthesiser whose truth is known, captioned by the tiny model.

    python benchmarks/trust_songs.py FOLDER --songs 200     writes and captions the songs, through `native`
    python benchmarks/trust.py FOLDER                       measures what is not measured yet, checks, prints

Two rounds: the model's own captions, and the same captions with their tempi and keys shuffled between the tracks. A
tempo is right within 4 % of the true one, its half or its double; a key if it is the true one. Right claims that are
marked contradicted are false alarms. The sidecars' captions are not changed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.sidecars.checks import descriptions
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.trust.check import check_captions
from musicflamingo_cli.trust.claims import Claim, Field, claims_in
from musicflamingo_cli.trust.known import Known, known_of
from musicflamingo_cli.trust.verdicts import Verdict, match_names

TOLERANCE = 0.04
FIELDS = (Field.TEMPO, Field.KEY)


@dataclass(slots=True)
class Counts:
    """Claims of one field: how many are wrong, how many of these were marked, and the same of the right ones."""

    wrong: int = 0
    caught: int = 0
    right: int = 0
    false_alarms: int = 0

    def line(self) -> str:
        """Return the counts for a person."""
        recall, alarms = self.caught / max(1, self.wrong), self.false_alarms / max(1, self.right)
        return (
            f"{self.caught} of {self.wrong} wrong ones marked ({recall:.1%}),"
            f" {self.false_alarms} of {self.right} right ones marked ({alarms:.1%})"
        )


@dataclass(frozen=True, slots=True)
class Song:
    """A captioned song: its truth, what is known of it, and its captions by preset."""

    truth: Mapping[str, Any]
    known: Known
    captions: Mapping[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shuffle-seed", type=int, default=1)
    options = parser.parse_args()
    subprocess.run(
        [sys.executable, "-m", "musicflamingo_cli", "measure", str(options.folder), "-q"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    songs = read(options.folder)
    print(f"{len(songs)} songs, {sum(len(song.captions) for song in songs)} captions")
    show("the model's captions", songs)
    for offset in range(3):
        seed = options.shuffle_seed + offset
        show(f"numbers shuffled between tracks, seed {seed}", shuffled(songs, seed))


def read(folder: Path) -> list[Song]:
    """Return the songs with their captions, as their sidecars have them."""
    truths = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    songs = []
    for name, truth in truths.items():
        track = track_for(folder / name)
        info = read_sidecar(track.sidecar)
        songs.append(Song(truth, known_of(info, track.audio), descriptions(info)))
    return songs


def shuffled(songs: list[Song], seed: int) -> list[Song]:
    """Return the songs with each caption's tempo and key replaced by those of another song's caption."""
    order = list(range(len(songs)))
    random.Random(seed).shuffle(order)
    found = []
    for song, other in zip(songs, (songs[index] for index in order), strict=True):
        captions = {
            preset: _with_numbers_of(text, other.captions.get(preset, text)) for preset, text in song.captions.items()
        }
        found.append(Song(song.truth, song.known, captions))
    return found


def _with_numbers_of(caption: str, other: str) -> str:
    values = {claim.field: other[claim.start : claim.end] for claim in reversed(claims_in(other))}
    for claim in sorted(claims_in(caption), key=lambda claim: -claim.start):
        if claim.field in FIELDS and claim.field in values:
            caption = caption[: claim.start] + values[claim.field] + caption[claim.end :]
    return caption


def show(title: str, songs: list[Song]) -> None:
    """Check the songs' captions and print what was marked."""
    counts = {field: Counts() for field in FIELDS}
    for song in songs:
        for each in check_captions(song.captions, song.known).claims:
            if each.claim.field not in FIELDS:
                continue
            found, is_marked = counts[each.claim.field], each.verdict == Verdict.CONTRADICTED
            if is_right(each.claim, song.truth):
                found.right += 1
                found.false_alarms += is_marked
            else:
                found.wrong += 1
                found.caught += is_marked
    print(title)
    for field, found in counts.items():
        print(f"  {field}: {found.line()}")


def is_right(claim: Claim, truth: Mapping[str, Any]) -> bool:
    """Return whether a tempo or key is the true one; half and double tempi are."""
    if claim.field == Field.KEY:
        return match_names(claim.value, truth["key"])
    bpm = float(truth["bpm"])
    return any(claim.low * (1 - TOLERANCE) <= bpm * ratio <= claim.high * (1 + TOLERANCE) for ratio in (1.0, 2.0, 0.5))


if __name__ == "__main__":
    main()
