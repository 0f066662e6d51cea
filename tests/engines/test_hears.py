"""The audio reaches the model intact: the trained tiny model names what is played, from any file, with each engine.

A model with random weights would not show wrong sample rates, lost channels or windows, or a wrong mel spectrogram.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
import soundfile
from numpy.typing import NDArray

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.engines import Engine, open_engine
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.types import Answer, Clip, Prompt, Sampling, Workload
from tiny_flamingo import captions, music
from tiny_flamingo.songs import SONGS

pytestmark = pytest.mark.real
GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
QUESTIONS = [
    Prompt(preset="technical", text="What are the tempo and the key of this track?", max_tokens=60),
    Prompt(preset="instrumentation", text="Which instruments are played?", max_tokens=80),
]
STRUCTURE = Prompt(preset="structure", text="What are the sections of this track?", max_tokens=60)
Samples = NDArray[np.float32]


def open_tiny(settings: Settings, name: EngineName) -> Engine:
    settings = replace(settings, engine=name, threads=1, timeout=120)
    return open_engine(settings, resolve("tiny", Path()), Workload(9, len(QUESTIONS)))[0]


def answers_of(engine: Engine, clip: Clip, prompts: list[Prompt]) -> dict[str, str]:
    answers = list(engine.describe(clip, prompts, GREEDY))
    assert all(isinstance(answer, Answer) for answer in answers), answers
    return {answer.prompt.preset: answer.text.strip() for answer in answers if isinstance(answer, Answer)}


@pytest.fixture(scope="module")
def engine(real_llama_dir: Path) -> Iterator[Engine]:
    opened = open_tiny(Settings(llama_dir=real_llama_dir), EngineName.SERVER)
    yield opened
    opened.close()


def as_m4a(path: Path, samples: Samples, rate: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode()])


def as_mp3_128(path: Path, samples: Samples, rate: int) -> None:
    soundfile.write(path, samples, rate, format="MP3", bitrate_mode="CONSTANT", compression_level=0.7)
    assert path.stat().st_size * 8 / (len(samples) / rate) == pytest.approx(128_000, rel=0.2)


WRITERS: dict[str, tuple[int, Callable[[Path, Samples, int], None]]] = {
    "plain.wav": (44_100, lambda path, samples, rate: soundfile.write(path, samples, rate)),
    "at 128 kbit.mp3": (44_100, as_mp3_128),
    "96 kHz, 24 bit.flac": (96_000, lambda path, samples, rate: soundfile.write(path, samples, rate, subtype="PCM_24")),
    "stereo.wav": (48_000, lambda path, samples, rate: soundfile.write(path, np.stack([samples] * 2, 1), rate)),
    "on the left only.wav": (
        48_000,
        lambda path, samples, rate: soundfile.write(path, np.stack([samples, 0 * samples], 1), rate),
    ),
    "speech codec.opus": (
        48_000,
        lambda path, samples, rate: soundfile.write(path, samples, rate, format="OGG", subtype="OPUS"),
    ),
    "from a phone.m4a": (44_100, as_m4a),
    "quiet.wav": (44_100, lambda path, samples, rate: soundfile.write(path, 0.03 * samples, rate, subtype="PCM_24")),
    "old sampler, 8 bit.wav": (
        22_050,
        lambda path, samples, rate: soundfile.write(path, samples, rate, subtype="PCM_U8"),
    ),
}


@pytest.mark.parametrize("title", SONGS)
@pytest.mark.parametrize("name", WRITERS)
def test_tempo_and_lead_are_named_for_every_kind_of_file(title: str, name: str, engine: Engine, tmp_path: Path) -> None:
    rate, write = WRITERS[name]
    samples, _ = music.render(SONGS[title], music.Recording(noise_db=-70.0), rate)
    write(tmp_path / name, samples, rate)
    clip = write_clip(tmp_path / name, tmp_path / "clip.wav")
    heard = captions.heard(" ".join(answers_of(engine, clip, QUESTIONS).values()))
    assert (heard["tempo"], heard["lead"]) == (str(SONGS[title].tempo), SONGS[title].lead)


def test_a_clip_at_the_wrong_rate_gets_another_answer(engine: Engine, tmp_path: Path) -> None:
    """The test above can fail: audio a third too fast has a third more beats a minute, and another key."""
    samples, _ = music.render(SONGS["house loop"], music.Recording(noise_db=-70.0), 33_075)
    soundfile.write(tmp_path / "fast.wav", samples, 44_100)
    answers = answers_of(engine, write_clip(tmp_path / "fast.wav", tmp_path / "clip.wav"), QUESTIONS)
    heard = captions.heard(" ".join(answers.values()))
    assert heard["tempo"] == "160"
    assert heard["key"] != "C"


@pytest.mark.slow
def test_engines_of_the_same_build_give_the_same_answers(engine: Engine, real_llama_dir: Path, tmp_path: Path) -> None:
    with contextlib.closing(open_tiny(Settings(llama_dir=real_llama_dir), EngineName.MTMD_CLI)) as other:
        for song in songs():
            clip = write_clip(song.path, tmp_path / "clip.wav")
            assert answers_of(other, clip, QUESTIONS) == answers_of(engine, clip, QUESTIONS)


@pytest.mark.parametrize("name", [EngineName.NATIVE, EngineName.EMBEDDED])
def test_every_engine_names_what_is_played(name: EngineName, real_llama_dir: Path, tmp_path: Path) -> None:
    """Another order of sums, or release of llama.cpp, may change how an answer is phrased, but not what it states."""
    with contextlib.closing(open_tiny(Settings(llama_dir=real_llama_dir), name)) as other:
        for song in songs():
            clip = write_clip(song.path, tmp_path / "clip.wav")
            text = " ".join(answers_of(other, clip, [*QUESTIONS, STRUCTURE]).values())
            assert captions.heard(text).items() >= captions.heard(". ".join(song.truth.values())).items()
            assert captions.heard(text)["structure"] == SONGS[song.path.stem].structure


@pytest.mark.parametrize("is_on", [True, False])
@pytest.mark.parametrize("name", [EngineName.NATIVE, EngineName.SERVER, EngineName.EMBEDDED])
def test_flash_attention_can_be_chosen(name: EngineName, is_on: bool, real_llama_dir: Path, tmp_path: Path) -> None:
    """The tiny model hears the same with it and without; test_mtmd_cli.py shows that engine's command line."""
    settings = Settings(llama_dir=real_llama_dir, flash_attention=is_on)
    with contextlib.closing(open_tiny(settings, name)) as other:
        song = songs()[0]
        heard = captions.heard(
            " ".join(answers_of(other, write_clip(song.path, tmp_path / "clip.wav"), QUESTIONS).values())
        )
        started = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    assert heard["tempo"] == str(SONGS[song.path.stem].tempo)
    assert any(("-fa", "on" if is_on else "off") in pairwise(command) for command in started)


def test_the_second_window_reaches_the_model(engine: Engine, tmp_path: Path) -> None:
    """Forty seconds: a window of silence, then the song."""
    samples, _ = music.render(SONGS["slow organ"], music.Recording(noise_db=-70.0), 16_000)
    soundfile.write(tmp_path / "late.wav", np.concatenate([np.zeros(16_000 * 30, np.float32), samples]), 16_000)
    clip = write_clip(tmp_path / "late.wav", tmp_path / "clip.wav")
    assert clip.padded_tokens == 1500
    assert captions.heard(answers_of(engine, clip, QUESTIONS[1:])["instrumentation"])["lead"] == "organ"
