"""The proof that the model hears: two different clips must be told apart."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from musicflamingo_cli.captioner import resolve_model
from musicflamingo_cli.config import Settings
from musicflamingo_cli.doctor import FAILURE, OK, Check
from musicflamingo_cli.engines import Engine, open_engine
from musicflamingo_cli.errors import EngineError, MusicFlamingoError
from musicflamingo_cli.scratch import folder_prefix
from musicflamingo_cli.types import SAMPLE_RATE, TOKENS_PER_WINDOW, Answer, Clip, Load, Prompt, Sampling

_QUESTION = Prompt("hearing", "Describe what you hear.", max_tokens=40, min_words=1)
_GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)


def hearing_test(settings: Settings, warn: Callable[[str], None]) -> Check:
    """Two different clips must get different answers at temperature 0, and the first the same one twice.

    With the engine that a batch would use. Nothing raises.
    """
    try:
        model = resolve_model(settings)
        engine, _ = open_engine(settings, model, Load(tracks=3, prompts=1), warn)
        with contextlib.closing(engine), tempfile.TemporaryDirectory(prefix=folder_prefix()) as folder:
            wrong, hint = _judge(*_answers(engine, Path(folder)))
    except MusicFlamingoError as error:
        return Check("hearing", FAILURE, str(error), error.hint, error.exit_code)
    who = f"{engine.name} with {model.language_model.name}"
    if wrong:
        return Check("hearing", FAILURE, f"{who}: {wrong}", hint)
    return Check("hearing", OK, f"{who}: different clips, different answers; the same clip, the same answer")


def _answers(engine: Engine, folder: Path) -> tuple[Answer, Answer, Answer]:
    """What is said about a steady tone, again about it, and about drum-like bursts of noise."""
    tone, bursts = _write_clips(folder)
    return _ask(engine, tone), _ask(engine, tone), _ask(engine, bursts)


def _ask(engine: Engine, clip: Clip) -> Answer:
    (result,) = list(engine.describe(clip, [_QUESTION], _GREEDY))  # to the end, which keeps the server for the next
    if isinstance(result, Answer):
        return result
    raise EngineError(f"no answer: {result.reason}", result.hint)


def _judge(first: Answer, again: Answer, other: Answer) -> tuple[str, str]:
    """What is wrong and the likely remedy; empty words where nothing is."""
    rebuild = "build the tested llama.cpp: musicflamingo build"
    if first.audio_tokens is not None and first.audio_tokens < TOKENS_PER_WINDOW:
        return f"the audio never reached the model ({first.audio_tokens} of {TOKENS_PER_WINDOW} tokens)", rebuild
    if first.text != again.text:
        return "the same clip got two different answers: the seed is random, or memory is bad", rebuild
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
