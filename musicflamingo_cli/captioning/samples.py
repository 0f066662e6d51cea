"""`check --samples`: several answers to each caption's prompt from one hearing; the control with silence and noise."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from musicflamingo_cli.audio import tags
from musicflamingo_cli.audio.clip import prepared
from musicflamingo_cli.captioning.captioner import Captioner
from musicflamingo_cli.captioning.judging import judged, not_heard
from musicflamingo_cli.captioning.saving import bug_failure, operating_system_failure
from musicflamingo_cli.errors import ConfigError, EngineError, ModelError, PromptError, ToolMissingError, TrackError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import SAMPLES_KEY, provenance_of
from musicflamingo_cli.sidecars.checks import descriptions
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.system.identity import digest
from musicflamingo_cli.system.temporary import folder_prefix
from musicflamingo_cli.trust import habits
from musicflamingo_cli.trust.measured import prompt_values
from musicflamingo_cli.types import SAMPLE_RATE, Caption, Clip, Failure, Prompt, Track

logger = logging.getLogger(__name__)

_CONTROL_SECONDS = 20  # of silence, and of noise
_CONTROL_ANSWERS = 2  # about each
_FIRST_SEED = 1000  # above the seed of the captions and of their retries


@dataclass(frozen=True, slots=True)
class Sampled:
    """The result for one track: the presets that were asked, or why it failed."""

    track: Track
    presets: tuple[str, ...] = ()
    failure: Failure | None = None


def wanted(info: Mapping[str, Any], presets: Sequence[Preset], model: str, number: int) -> list[Preset]:
    """Return the presets to ask: those with a caption of this model that has fewer than ``number`` answers."""
    captions = descriptions(info)
    return [
        each
        for each in presets
        if each.name in captions
        and provenance_of(info, each.name).get("model") == model
        and not habits.has_samples(info, each.name, captions[each.name], number)
    ]


def sample_tracks(
    captioner: Captioner, tracks: Iterable[tuple[Track, Sequence[Preset]]], number: int
) -> Iterator[Sampled]:
    """Ask ``number`` times about each track, and save how far the answers agree with its captions.

    Each answer has a seed of its own; the audio stays in the engine's memory. Nothing about one track raises; what
    concerns all does: ConfigError, ModelError, ToolMissingError.
    """
    for track, presets in tracks:
        try:
            info = read_sidecar(track.sidecar)
            asked = wanted(info, presets, captioner.model.name, number)
            if not asked:
                continue
            with prepared(track.audio, captioner.policy.excerpt) as clip:
                values = tags.describe(track.audio, info, clip.source_seconds or clip.seconds)
                values |= prompt_values(info, track.audio)
                answers = _answers(captioner, clip, _prompts(asked, values), number)
            captions = descriptions(info)
            found = {name: habits.samples_value(captions[name], texts) for name, texts in answers.items()}
            before = info.get(SAMPLES_KEY)
            merged = {**(before if isinstance(before, dict) else {}), **found}
            merge_sidecar(track.sidecar, {SAMPLES_KEY: merged}, track.within)
            yield Sampled(track, tuple(found))
        except TrackError as error:
            yield Sampled(track, failure=Failure.for_track(error))
        except OSError as error:
            yield Sampled(track, failure=operating_system_failure(error))
        except (ConfigError, ModelError, ToolMissingError):
            raise
        except Exception as error:  # a bug, ours or a decoder's: one bad file must not end the run
            yield Sampled(track, failure=bug_failure(error))


def learn_habits(captioner: Captioner, presets: Sequence[Preset]) -> list[str]:
    """Ask about silence and noise what was not asked before, and keep the claims; return the presets asked."""
    identity = digest(captioner.model.files)
    if identity is None:
        return []
    prompts = {prompt.preset: prompt for prompt in _prompts(presets, {})}
    asked = {
        name: prompt for name, prompt in prompts.items() if habits.habit_of(identity, prompt.template_hash) is None
    }
    if not asked:
        return []
    texts: dict[str, list[str]] = {name: [] for name in asked}
    with tempfile.TemporaryDirectory(prefix=folder_prefix()) as folder:
        for clip in _control_clips(Path(folder)):
            for name, found in _answers(captioner, clip, list(asked.values()), _CONTROL_ANSWERS).items():
                texts[name] += found
    for name, prompt in asked.items():
        habits.save_habit(identity, prompt.template_hash, texts[name])
    return list(asked)


def _prompts(presets: Sequence[Preset], values: Mapping[str, str]) -> list[Prompt]:
    found = []
    for preset in presets:
        try:
            found.append(preset.render(values))
        except PromptError as error:  # it consists of variables that have no value here
            logger.info("%s is not asked: %s", preset.name, error)
    return found


def _answers(captioner: Captioner, clip: Clip, prompts: Sequence[Prompt], number: int) -> dict[str, list[str]]:
    """Return the accepted answers to each prompt. Raises EngineError where there is none at all."""
    texts: dict[str, list[str]] = {prompt.preset: [] for prompt in prompts}
    problem = ""
    sampling = captioner.policy.sampling
    for index in range(1, number + 1):
        other = replace(sampling, seed=(sampling.seed + _FIRST_SEED + index) % 2**32)
        for result in captioner.engine.describe(clip, prompts, other):
            if isinstance(result, Failure):
                problem = result.reason
            elif failure := not_heard(result, captioner.engine.expected_audio_tokens(clip)):
                problem = failure.reason
            elif isinstance(caption := judged(result), Caption):
                texts[caption.preset].append(caption.text)
    if problem and not any(texts.values()):
        raise EngineError(f"no answer: {problem}", "find the cause with: musicflamingo doctor")
    return texts


def _control_clips(folder: Path) -> Iterator[Clip]:
    import numpy as np
    import soundfile

    samples = _CONTROL_SECONDS * SAMPLE_RATE
    noise = 0.1 * np.random.default_rng(1).standard_normal(samples)
    for name, sound in {"silence": np.zeros(samples), "noise": noise}.items():
        path = folder / f"{name}.wav"
        soundfile.write(path, sound.astype(np.float32), SAMPLE_RATE, subtype="FLOAT")
        yield Clip(path=path, samples=samples, source_seconds=float(_CONTROL_SECONDS), was_cut=False)
