"""One track: what is missing, ask for it, judge the answers, save what was accepted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.audio import tags
from musicflamingo_cli.audio.clip import Part, prepared
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines import Engine, open_engine
from musicflamingo_cli.errors import EngineError, ModelError, PromptError, ToolMissingError, TrackError, kind_of
from musicflamingo_cli.llamacpp import memory
from musicflamingo_cli.models.resolve import ModelPair, resolve
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars import merge as sidecar
from musicflamingo_cli.sidecars.staleness import Maker, has_real
from musicflamingo_cli.system.temporary import sweep_temporary_folders
from musicflamingo_cli.text.cleaning import judge
from musicflamingo_cli.types import Answer, Caption, Clip, Failure, Load, Outcome, Prompt, Sampling, Track


@dataclass(frozen=True, slots=True)
class Policy:
    """How tracks are captioned. ``save``: merge into the sidecars; ``overwrite``: a toy's words over real ones, too."""

    sampling: Sampling = field(default_factory=Sampling)
    retries: int = Settings().retries
    part: Part = field(default_factory=Part)  # of a track that is heard
    save: bool = True
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Captioner:
    """A model behind an engine, and how it is to be used. Make one with ``open_captioner``."""

    engine: Engine
    model: ModelPair
    policy: Policy
    why: str = ""  # this engine
    _lanes: threading.Semaphore = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_lanes", threading.Semaphore(self.engine.lanes))

    def saving(self, save: bool) -> Captioner:
        """The same captioner, with the same lanes, that saves or does not."""
        other = replace(self, policy=replace(self.policy, save=save))
        object.__setattr__(other, "_lanes", self._lanes)
        return other

    def caption(self, track: Track, presets: Sequence[Preset], info: Mapping[str, Any]) -> Outcome:
        """Ask ``presets`` about a track; ``info`` is its sidecar's data. Nothing about one track raises.

        From several threads at once: clips are prepared side by side, as many as the engine has lanes are asked
        about, and a lane is kept until the last retry, since the engine still has the track in its memory.
        On KeyboardInterrupt what was answered is saved before it goes on its way.
        """
        started = time.monotonic()
        captions: list[Caption] = []
        failures: list[Failure] = []
        clip: Clip | None = None
        saved = False
        try:
            with prepared(track.audio, self.policy.part) as clip:
                values = tags.describe(track.audio, info, clip.source_seconds or clip.seconds)
                prompts, failures = _render(presets, values)
                try:
                    with self._lanes:
                        self._ask(clip, prompts, captions, failures)
                except BaseException:
                    with contextlib.suppress(TrackError):
                        self._save(track, self._to_save(captions, info), clip)
                    raise
                saved = self._save(track, self._to_save(captions, info), clip)
        except (ToolMissingError, ModelError):  # no track can be captioned: that ends the run
            raise
        except TrackError as error:
            failures.append(Failure("", error.kind, str(error), error.hint))
        except OSError as error:
            failures.append(_operating_system_failure(error))
        except Exception as error:  # a fault of ours or of a decoder: one poisoned file must not end the night
            failures.append(Failure("", "fault", f"{type(error).__name__}: {error}", "report it with this file"))
        heard, notes = (clip.seconds, _cut_note(clip)) if clip else (0.0, ())
        if self.policy.save and self._to_save(captions, info) != captions:
            notes += ("a real model's captions are there; the toy's words do not replace them",)
        elapsed = time.monotonic() - started
        return Outcome(track, tuple(captions), tuple(failures), "", notes, heard, elapsed, saved)

    def _ask(self, clip: Clip, prompts: Sequence[Prompt], captions: list[Caption], failures: list[Failure]) -> None:
        """Ask, judge, ask the refused again with other seeds; fills the two lists as answers come."""
        pending = list(prompts)
        refusals: dict[str, str] = {}
        for attempt in range(self.policy.retries + 1):
            if not pending:
                return
            refusals.clear()
            for result in self._answers(clip, pending, self.policy.sampling.again(attempt)):
                if isinstance(result, Failure):
                    failures.append(result)
                    continue
                if deaf := _not_heard(result, clip):
                    failures.append(deaf)
                    continue
                prompt = result.prompt
                verdict = judge(result.text, result.hit_limit, prompt.min_words, prompt.lines)
                if verdict.refusal:
                    refusals[prompt.preset] = verdict.refusal
                else:
                    captions.append(Caption(prompt.preset, verdict.text, result))
            pending = [prompt for prompt in pending if prompt.preset in refusals]
        failures += [self._refused(prompt, refusals[prompt.preset]) for prompt in pending]

    def _answers(self, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Answer | Failure]:
        """The engine's results; an error that ends it early is a failure of each prompt not yet answered."""
        waiting = {prompt.preset for prompt in prompts}
        try:
            for result in self.engine.describe(clip, prompts, sampling):
                waiting.discard(result.preset if isinstance(result, Failure) else result.prompt.preset)
                yield result
        except EngineError as error:
            for preset in sorted(waiting):
                yield Failure(preset, error.kind, str(error), error.hint)

    def _refused(self, prompt: Prompt, reason: str) -> Failure:
        tries = self.policy.retries + 1
        return Failure(
            prompt.preset,
            "refused answer",
            f"{reason} ({tries} tries)" if tries > 1 else reason,
            "try another --seed, or more --retries",
        )

    def _to_save(self, captions: list[Caption], info: Mapping[str, Any]) -> list[Caption]:
        """Without those that would replace better ones: a toy's words where a real model's are."""
        if not self.model.is_toy or self.policy.overwrite:
            return captions
        return [caption for caption in captions if not has_real(info, caption.preset)]

    def _save(self, track: Track, captions: Sequence[Caption], clip: Clip) -> bool:
        if not captions or not self.policy.save:
            return False
        keys: dict[str, Any] = {sidecar.caption_key(caption.preset): caption.text for caption in captions}
        keys[sidecar.MODEL_KEY] = self.model.label
        keys[sidecar.PROVENANCE_KEY] = {c.preset: self._provenance(c, clip) for c in captions}
        sidecar.merge_sidecar(track.sidecar, keys)
        return True

    def _provenance(self, caption: Caption, clip: Clip) -> dict[str, Any]:
        """What is needed to know that a caption is stale, or to make it again."""
        prompt, sampling = caption.answer.prompt, caption.answer.sampling
        made: dict[str, Any] = {
            "prompt": prompt.text,
            "template": prompt.template_hash,
            "max_tokens": prompt.max_tokens,
            "model": self.model.language_model.name,
            "mmproj": self.model.projector.name,
            "engine": self.engine.name,
            "llama_cpp": self.engine.version,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "repeat_penalty": sampling.repeat_penalty,
            "seed": sampling.seed,
            "audio_seconds": round(clip.seconds, 3),
            "version": __version__,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),  # finer than a track takes: see --overwrite
        }
        if prompt.system:
            made["system"] = prompt.system
        if clip.was_cut and clip.source_seconds:
            made["source_seconds"] = round(clip.source_seconds, 3)
        elif clip.was_cut:
            made["cut"] = True  # by how much, only decoding it all would tell
        if self.policy.part.start:
            made["start"] = self.policy.part.start
        if self.policy.part.fraction < 1:
            made["fraction"] = self.policy.part.fraction
        if self.model.is_toy:
            made["toy"] = True
        return made


@contextlib.contextmanager
def open_captioner(
    settings: Settings,
    save: bool,
    warn: Callable[[str], None],
    load: Load,
    model: ModelPair | None = None,
    overwrite: bool = False,
) -> Iterator[Captioner]:
    """A captioner as the settings say. Raises ModelError or ToolMissingError before any track is touched.

    ``load`` is what will be asked of it. ``warn`` gets the engine's remarks.
    ``model``: the settings' model, where the caller has resolved it already. ``overwrite``: see Policy.
    """
    sweep_temporary_folders()
    model = model or resolve_model(settings)
    part = Part(settings.start, settings.fraction, settings.max_seconds)
    policy = Policy(_sampling(settings), settings.retries, part, save, overwrite)
    engine, why = open_engine(settings, model, load, warn)
    with contextlib.closing(engine):
        yield Captioner(engine, model, policy, why)


def maker(settings: Settings, model: ModelPair) -> Maker:
    """What these settings would make captions with, to know the stale ones by."""
    hearing = {"start": settings.start or None, "fraction": settings.fraction if settings.fraction < 1 else None}
    return Maker(
        is_toy=model.is_toy,
        model=model.language_model.name,
        projector=model.projector.name,
        sampling=_sampling(settings),
        retries=settings.retries,
        version=__version__,
        hearing=hearing,
        max_seconds=settings.max_seconds,
    )


def _sampling(settings: Settings) -> Sampling:
    return Sampling(settings.temperature, settings.top_p, settings.repeat_penalty, settings.seed)


def resolve_model(settings: Settings) -> ModelPair:
    """The pair that the settings name; `auto` looks at the memory there is. Raises ModelError and ConfigError."""

    def there_is() -> memory.Memory:
        return memory.here(settings.llama_dir, settings.gpu_layers)

    return resolve(settings.model, settings.models_folder, settings.mmproj, there_is)


def _render(presets: Sequence[Preset], values: Mapping[str, str]) -> tuple[list[Prompt], list[Failure]]:
    prompts, failures = [], []
    for preset in presets:
        try:
            prompts.append(preset.render(values))
        except PromptError as error:
            failures.append(Failure(preset.name, error.kind, str(error), error.hint))
    return prompts, failures


def _not_heard(answer: Answer, clip: Clip) -> Failure | None:
    """A caption that the model did not hear the audio for is worse than none."""
    if answer.audio_tokens is None or answer.audio_tokens >= clip.audio_tokens:
        return None
    return Failure(
        answer.prompt.preset,
        "not heard",
        f"the model heard {answer.audio_tokens} of the clip's {clip.audio_tokens} audio tokens",
        "build the tested llama.cpp with: musicflamingo build",
    )


def _cut_note(clip: Clip) -> tuple[str, ...]:
    if not clip.was_cut:
        return ()
    whole = f" of {clip.source_seconds:.0f} s" if clip.source_seconds else ""
    since = f"from {clip.start:.0f} s on" if clip.start else "the first"
    return (f"heard {since} {clip.seconds:.0f} s{whole}; the rest was left out",)


def _operating_system_failure(error: OSError) -> Failure:
    where = f" ({error.filename})" if error.filename else ""
    hint = "check the disk's space and permissions, then run it again"
    return Failure("", kind_of(error), f"{error.strerror or error}{where}", hint)
