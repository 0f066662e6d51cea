"""The proof of hearing: the engine names what is played in known songs, and the model tells two clips apart."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.doctor.checks import Check, runs_in_transformers
from musicflamingo_cli.engines import Engine, open_engine
from musicflamingo_cli.errors import EngineError, MusicFlamingoError
from musicflamingo_cli.models.model import TINY, Model
from musicflamingo_cli.models.resolve import resolve_model
from musicflamingo_cli.system.temporary import folder_prefix
from musicflamingo_cli.types import SAMPLE_RATE, Answer, Clip, Prompt, Sampling, Workload

_SHORT_QUESTION = Prompt(preset="hearing", text="Describe what you hear.", max_tokens=40, min_words=1)
_FULL_QUESTION = Prompt(preset="hearing", text="Describe this music in full detail.", max_tokens=100, min_words=1)
_GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
_REBUILD = "build the tested llama.cpp: musicflamingo build"
_PLAIN = "try --device cpu, --attention eager and no --quantize"


def hearing_tests(settings: Settings) -> Iterator[Check]:
    """Yield two checks, made with the engine that a batch would use. Raises nothing.

    First the tiny model is asked about known songs: that shows whether decoding, the engine and its audio encoder work.
    Then the settings' own model, unless it is the tiny one: at temperature 0, two different clips must get different
    answers, and the same clip the same answer twice. An endpoint has only its own model.
    """
    if not settings.endpoint:
        yield _checked("hearing", settings, lambda: _tiny_model(settings), _test_known_songs)
    if settings.endpoint or settings.model != TINY:
        yield _checked("model's hearing", settings, lambda: resolve_model(settings), _test_two_clips)


def _tiny_model(settings: Settings) -> Model:
    """Return the tiny model as what the settings' own model is: a GGUF pair or a checkpoint."""
    engine = EngineName.TRANSFORMERS if runs_in_transformers(settings) else settings.engine
    return resolve_model(replace(settings, model=TINY, mmproj=None, lora=None, engine=engine))


# Gets a folder for clips; returns what works, or what does not and what to do (empty strings for the others).
Test = Callable[[Engine, Path], tuple[str, str, str]]


def _checked(name: str, settings: Settings, find_model: Callable[[], Model], test: Test) -> Check:
    try:
        model = find_model()
        engine, _ = open_engine(settings, model, Workload(tracks=3, prompts=1))
        with contextlib.closing(engine), tempfile.TemporaryDirectory(prefix=folder_prefix()) as folder:
            success, problem, hint = test(engine, Path(folder))
    except MusicFlamingoError as error:
        return Check.for_error(name, error)
    except OSError as error:
        return Check.failure(
            name, f"no clip could be written: {error}", "make room in the temporary folder, or set TMPDIR"
        )
    subject = f"{engine.name} with {model.name}"
    if problem:
        return Check.failure(name, f"{subject}: {problem}", hint)
    return Check.ok(name, f"{subject}: {success}")


def _test_known_songs(engine: Engine, folder: Path) -> tuple[str, str, str]:
    for song in songs():
        clip = write_clip(song.path, folder / "song.wav")
        text = _ask(engine, clip, _FULL_QUESTION).text.strip()
        if missed := song.missed(text):
            problem = f"the answer about a song with {', '.join(missed)} is wrong: {text[:200]!r}"
            return "", problem, f"{_fix_for(engine)}; or try another --engine"
    return "names tempo, key and instruments of known songs", "", ""


def _test_two_clips(engine: Engine, folder: Path) -> tuple[str, str, str]:
    """Ask twice about a steady tone, and once about drum-like bursts of noise."""
    tone, bursts = _write_clips(folder)
    answers = [_ask(engine, clip, _SHORT_QUESTION) for clip in (tone, tone, bursts)]
    problem, hint = _problem(engine.expected_audio_tokens(tone), _fix_for(engine), *answers)
    return "different clips, different answers; the same clip, the same answer", problem, hint


def _ask(engine: Engine, clip: Clip, question: Prompt) -> Answer:
    """Return the answer. Raises EngineError."""
    (result,) = list(engine.describe(clip, [question], _GREEDY))  # to its end, which keeps the server running
    if isinstance(result, Answer):
        return result
    raise EngineError(f"no answer: {result.reason}", result.hint)


def _fix_for(engine: Engine) -> str:
    return _PLAIN if engine.name == EngineName.TRANSFORMERS else _REBUILD


def _problem(expected: int, fix: str, first: Answer, repeated: Answer, other: Answer) -> tuple[str, str]:
    """Return what is wrong and what to do; two empty strings where nothing is wrong."""
    if first.audio_tokens is not None and first.audio_tokens < expected:
        return f"the audio never reached the model ({first.audio_tokens} of {expected} tokens)", fix
    if first.text != repeated.text:
        return "the same clip got two different answers: the seed is random, or memory is faulty", fix
    if first.text == other.text:
        return (
            f"two different clips got the same answer ({first.text.strip()[:60]!r}): the audio does not reach the"
            " model, or the projector belongs to another model",
            "download the model again: musicflamingo models pull NAME; or try another --engine",
        )
    return "", ""


def _write_clips(folder: Path) -> tuple[Clip, Clip]:
    import numpy as np
    import soundfile

    time = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    noise = np.random.RandomState(1).standard_normal(len(time))
    sounds = {"tone": 0.4 * np.sin(2 * np.pi * 440 * time), "bursts": 0.2 * noise * np.exp(-8 * (time % 0.5))}
    clips = []
    for name, samples in sounds.items():
        path = folder / f"{name}.wav"
        soundfile.write(path, samples.astype(np.float32), SAMPLE_RATE, subtype="FLOAT")
        clips.append(Clip(path=path, samples=len(samples), source_seconds=len(samples) / SAMPLE_RATE, was_cut=False))
    return clips[0], clips[1]
