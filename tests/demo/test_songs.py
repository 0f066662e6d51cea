from __future__ import annotations

import numpy as np
import pytest
import soundfile

from musicflamingo_cli.demo.songs import Song, songs
from tiny_flamingo import captions, music
from tiny_flamingo.songs import RATE, SONGS


@pytest.mark.parametrize(("title", "song"), SONGS.items())
def test_known_attributes_are_those_that_were_played(title: str, song: music.Song) -> None:
    (shipped,) = [each for each in songs() if each.path.stem == title]
    assert shipped.truth == captions.truth(song)
    samples, rate = soundfile.read(shipped.path)
    made, _ = music.render(song, music.Recording(noise_db=-70.0), RATE)
    assert rate == RATE
    # A lossy copy, slightly delayed: the same spectrum up to 8 kHz.
    ours, theirs = (np.abs(np.fft.rfft(x[: 10 * RATE]))[:80_000].reshape(400, -1).mean(axis=1) for x in (made, samples))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99


def test_missed_attributes() -> None:
    song = songs()[0]
    assert song.missed("At 80 BPM in A minor: an organ, a deep sub bass and no drums.") == []
    assert song.missed("At 80 BPM in A minor: an organ and no drums.") == ["a deep sub bass"]
    assert Song(song.path, {"lead": "an organ", "drums": "no drums"}).missed("It has no drums.", ["lead", "drums"]) == [
        "an organ"
    ]
