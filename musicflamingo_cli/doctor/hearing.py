"""The proof of hearing: llama.cpp names what is played in known songs, and the model tells two clips apart."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from musicflamingo_cli.audio import clip as audio
from musicflamingo_cli.captioning.captioner import resolve_model
from musicflamingo_cli.config import Settings
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.doctor.checks import FAILURE, OK, Check
from musicflamingo_cli.engines import Engine, open_engine
from musicflamingo_cli.errors import EngineError, MusicFlamingoError
from musicflamingo_cli.models.resolve import TINY, ModelPair, resolve
from musicflamingo_cli.system.temporary import folder_prefix
from musicflamingo_cli.types import SAMPLE_RATE, TOKENS_PER_WINDOW, Answer, Clip, Load, Prompt, Sampling

_QUESTION = Prompt("hearing", "Describe what you hear.", max_tokens=40, min_words=1)
_WHAT_IS_PLAYED = Prompt("hearing", "Describe this music in full detail.", max_tokens=100, min_words=1)
_GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
_REBUILD = "build the tested llama.cpp: musicflamingo build"


def hearing_tests(settings: Settings, warn: Callable[[str], None]) -> Iterator[Check]:
    """Two checks, with the engine that a batch would use; nothing raises.

    First the tiny model about songs whose truth is known: whether decoding, llama.cpp and its audio encoder are right.
    Then the settings' own model, unless it is the tiny one: two different clips must get different answers at
    temperature 0, and the first the same one twice.
    """
    yield _checked("hearing", settings, lambda: resolve(TINY, settings.models_folder), _names_what_is_played, warn)
    if settings.model != TINY:
        yield _checked("model's hearing", settings, lambda: resolve_model(settings), _tells_apart, warn)


Test = Callable[[Engine, Path], tuple[str, str, str]]  # what is right; what is wrong, and the likely remedy


def _checked(
    name: str, settings: Settings, find: Callable[[], ModelPair], test: Test, warn: Callable[[str], None]
) -> Check:
    try:
        model = find()
        engine, _ = open_engine(settings, model, Load(tracks=3, prompts=1), warn)
        with contextlib.closing(engine), tempfile.TemporaryDirectory(prefix=folder_prefix()) as folder:
            right, wrong, hint = test(engine, Path(folder))
    except MusicFlamingoError as error:
        return Check(name, FAILURE, str(error), error.hint, error.exit_code)
    except OSError as error:
        return Check(
            name, FAILURE, f"no clip could be written: {error}", "make room in the temporary folder, or set TMPDIR"
        )
    who = f"{engine.name} with {model.language_model.name}"
    if wrong:
        return Check(name, FAILURE, f"{who}: {wrong}", hint)
    return Check(name, OK, f"{who}: {right}")


def _names_what_is_played(engine: Engine, folder: Path) -> tuple[str, str, str]:
    for song in songs():
        clip = audio.write_clip(song.path, folder / "song.wav")
        said = _ask(engine, clip, _WHAT_IS_PLAYED).text.strip()
        if missed := song.missed(said):
            wrong = f"of a song with {', '.join(missed)} it said {said[:200]!r}: llama.cpp hears wrongly"
            return "", wrong, f"{_REBUILD}; or try another --engine"
    return "names tempo, key and instruments of known songs", "", ""


def _tells_apart(engine: Engine, folder: Path) -> tuple[str, str, str]:
    """Asks about a steady tone, again about it, and about drum-like bursts of noise."""
    tone, bursts = _write_clips(folder)
    wrong, hint = _judge(*(_ask(engine, clip, _QUESTION) for clip in (tone, tone, bursts)))
    return "different clips, different answers; the same clip, the same answer", wrong, hint


def _ask(engine: Engine, clip: Clip, question: Prompt) -> Answer:
    (result,) = list(engine.describe(clip, [question], _GREEDY))  # to the end, which keeps the server for the next
    if isinstance(result, Answer):
        return result
    raise EngineError(f"no answer: {result.reason}", result.hint)


def _judge(first: Answer, again: Answer, other: Answer) -> tuple[str, str]:
    """What is wrong and the likely remedy; empty words where nothing is."""
    if first.audio_tokens is not None and first.audio_tokens < TOKENS_PER_WINDOW:
        return f"the audio never reached the model ({first.audio_tokens} of {TOKENS_PER_WINDOW} tokens)", _REBUILD
    if first.text != again.text:
        return "the same clip got two different answers: the seed is random, or memory is bad", _REBUILD
    if first.text == other.text:
        return (
            f"two different clips got the same answer ({first.text.strip()[:60]!r}): the audio does not reach the"
            " model, or the projector is another model's",
            "get the pair again: musicflamingo models pull auto; or try another --engine",
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
        soundfile.write(folder / f"{name}.wav", samples.astype(np.float32), SAMPLE_RATE, subtype="FLOAT")
        clips.append(Clip(folder / f"{name}.wav", len(samples), len(samples) / SAMPLE_RATE, False))
    return clips[0], clips[1]
