"""One track: ask for what is missing, judge the answers, save the accepted ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from musicflamingo_cli.audio import tags
from musicflamingo_cli.audio.clip import prepared
from musicflamingo_cli.captioning.improvement import Improvement, verdict_on
from musicflamingo_cli.captioning.judging import REASONING_TOKENS, clip_notes, in_order, not_heard
from musicflamingo_cli.captioning.provenance import RunIdentity, provenance
from musicflamingo_cli.captioning.saving import bug_failure, operating_system_failure, save_outcome
from musicflamingo_cli.captioning.worker_pool import SlotGate
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines import Engine, open_engine
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer, Stage
from musicflamingo_cli.engines.pool.engine import PoolEngine
from musicflamingo_cli.engines.pool.member import MemberStatus
from musicflamingo_cli.errors import (
    EngineError,
    FailureKind,
    ModelError,
    ToolMissingError,
    TrackError,
)
from musicflamingo_cli.models.model import Model
from musicflamingo_cli.models.resolve import resolve_model
from musicflamingo_cli.prompts import Preset, render_all
from musicflamingo_cli.sidecars.captions import (
    MODEL_KEY,
    PROVENANCE_KEY,
    caption_key,
    has_real_caption,
    is_protected,
    reasoning_key,
)
from musicflamingo_cli.sidecars.merge import update_sidecar
from musicflamingo_cli.system.temporary import sweep_temporary_folders
from musicflamingo_cli.text.cleaning import hint_for
from musicflamingo_cli.trust.measured import prompt_values
from musicflamingo_cli.types import (
    Answer,
    Caption,
    Clip,
    Excerpt,
    Failure,
    Outcome,
    Prompt,
    Sampling,
    Track,
    Workload,
)

NO_BETTER = "no answer had fewer contradictions; the captions stay"  # why a track is skipped


@dataclass(frozen=True, slots=True)
class Policy:
    """How tracks are captioned. ``overwrite``: the tiny model's captions may replace a real model's, too.

    ``replace_edited``: captions that a person edited are replaced, too. ``keep_reasoning``: save what a model that
    thinks writes before its answer beside the caption. ``improve``: retry answers with a contradicted claim, too, and
    keep what is there unless an answer has fewer contradictions.
    """

    sampling: Sampling = field(default_factory=Sampling)
    retries: int = Settings().retries
    excerpt: Excerpt = field(default_factory=Excerpt)
    overwrite: bool = False
    replace_edited: bool = False
    keep_reasoning: bool = False
    improve: bool = False


class Captioner:
    """A model behind an engine, and the policy for using it. Make one with ``open_captioner``.

    ``reason``: why it is this engine.
    """

    def __init__(self, engine: Engine, model: Model, policy: Policy, reason: str = "") -> None:
        self.engine = engine
        self.model = model
        self.policy = policy
        self.reason = reason
        self._run = RunIdentity(model)
        self._slots = SlotGate(lambda: engine.slots)

    @property
    def slots(self) -> int:
        """How many tracks it captions at once; the number may change."""
        return self.engine.slots

    @property
    def engine_name(self) -> str:
        """The engine's name, for people and `--json`."""
        return self.engine.name

    @property
    def members(self) -> Sequence[MemberStatus]:
        """The engines behind a pool and how each of them is; empty where there is one engine."""
        return self.engine.members if isinstance(self.engine, PoolEngine) else ()

    def close(self) -> None:
        """Stop all work, from any thread; see ``Engine.close``."""
        self.engine.close()

    def caption(
        self,
        track: Track,
        presets: Sequence[Preset],
        info: Mapping[str, Any],
        *,
        save: bool,
        observer: Observer = UNOBSERVED,
    ) -> Outcome:
        """Ask ``presets`` about a track; ``info`` is its sidecar's data. Nothing about one track raises.

        May be called from several threads: clips are prepared in parallel, and as many are asked about as the engine
        has slots. A slot is kept until the last retry, since the engine still holds the track in its memory.
        On KeyboardInterrupt, saves the finished answers, then re-raises.

        Raises ToolMissingError and ModelError, which concern every track.
        """
        work = _Work(track, presets, info, observer)
        try:
            self._ask(work)
        except BaseException:
            if save:
                save_outcome(self._outcome(work, save))
            raise
        outcome = self._outcome(work, save)
        return save_outcome(outcome) if save else outcome

    def answer(self, track: Track, presets: Sequence[Preset], info: Mapping[str, Any]) -> Outcome:
        """Do as ``caption``, but write nothing: ``Outcome.keys`` is what ``save_outcome`` writes, on any machine."""
        work = _Work(track, presets, info)
        self._ask(work)
        return self._outcome(work, True)

    def _ask(self, work: _Work) -> None:
        """Fill in ``work``, as results arrive. Raises what concerns every track, and interrupts."""
        track, observer = work.track, work.observer
        observer.reached(Stage.PREPARING)
        try:
            with prepared(track.audio, self.policy.excerpt) as work.clip:
                for result in self.ask(work.clip, track, work.presets, work.info, observer):
                    work.results.append(result)
        except (ToolMissingError, ModelError):
            raise
        except TrackError as error:
            work.results.append(Failure.for_track(error))
        except OSError as error:
            work.results.append(operating_system_failure(error))
        except Exception as error:  # a bug, ours or a decoder's: one bad file must not end the run
            work.results.append(bug_failure(error))

    def ask(
        self,
        clip: Clip,
        track: Track,
        presets: Sequence[Preset],
        info: Mapping[str, Any],
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Caption | Failure]:
        """Yield one result for each preset about a clip of a track, as they arrive; from several threads.

        Waits for a slot. ``info``: what is known of the track, and which captions there are.
        """
        values = tags.describe(track.audio, info, clip.source_seconds or clip.seconds)
        prompts, failures = render_all(presets, values | prompt_values(info, track.audio))
        yield from failures
        if self.model.reasons:
            prompts = [replace(each, max_tokens=each.max_tokens + REASONING_TOKENS) for each in prompts]
        observer.answered(0, len(prompts))
        observer.reached(Stage.WAITING)
        with self._slots:
            improvement = Improvement(track, info) if self.policy.improve else None
            for number, result in enumerate(self._results(clip, prompts, improvement, observer), 1):
                observer.answered(number, len(prompts))
                yield result

    def _outcome(self, work: _Work, save: bool) -> Outcome:
        """Return what came of a track, not saved yet; with ``save``, with the keys to save."""
        captions = in_order(work.results, work.presets)
        clip = work.clip
        notes = clip_notes(clip) if clip else ()
        to_save = self.to_save(captions, work.info)
        if save:
            notes += self._kept(captions, work.info)
        return Outcome(
            track=work.track,
            captions=tuple(captions),
            failures=tuple(result for result in work.results if isinstance(result, Failure)),
            skipped=NO_BETTER if self.policy.improve and not work.results else "",
            notes=notes,
            audio_seconds=clip.seconds if clip else 0.0,
            seconds=time.monotonic() - work.started,
            keys=self.sidecar_keys(to_save, work.info, clip) if save and clip else {},
            replaces_edited=self.policy.replace_edited,
        )

    def _results(
        self, clip: Clip, prompts: Sequence[Prompt], improvement: Improvement | None, observer: Observer
    ) -> Iterator[Caption | Failure]:
        """One result a prompt, as answers arrive; refused answers are retried with other seeds.

        With ``improvement``, none for a prompt whose answers were no better than what is there.
        """
        pending = list(prompts)
        refusals: dict[str, str] = {}
        for attempt in range(self.policy.retries + 1):
            if not pending:
                return
            refusals.clear()
            for result in self._answers(clip, pending, self.policy.sampling.for_retry(attempt), observer):
                if isinstance(result, Failure):
                    yield result
                elif failure := not_heard(result, self.engine.expected_audio_tokens(clip)):
                    yield failure
                elif isinstance(verdict := verdict_on(result, improvement), Caption):
                    yield verdict
                else:
                    refusals[result.prompt.preset] = verdict
            pending = [prompt for prompt in pending if prompt.preset in refusals]
        for prompt in pending:
            if improvement is None:
                yield self._refused(prompt, refusals[prompt.preset])
            elif best := improvement.best(prompt.preset):
                yield best

    def _answers(
        self, clip: Clip, prompts: Sequence[Prompt], sampling: Sampling, observer: Observer
    ) -> Iterator[Answer | Failure]:
        """The engine's results; an error that ends it early is a failure of each prompt not yet answered."""
        waiting = {prompt.preset for prompt in prompts}
        try:
            for result in self.engine.describe(clip, prompts, sampling, observer):
                waiting.discard(result.preset if isinstance(result, Failure) else result.prompt.preset)
                yield result
        except EngineError as error:
            for preset in sorted(waiting):
                yield Failure.for_preset(preset, error)

    def _refused(self, prompt: Prompt, reason: str) -> Failure:
        tries = self.policy.retries + 1
        return Failure(
            preset=prompt.preset,
            kind=FailureKind.REFUSED_ANSWER,
            reason=f"{reason} ({tries} tries)" if tries > 1 else reason,
            hint=hint_for(reason),
        )

    def to_save(self, captions: Sequence[Caption], info: Mapping[str, Any]) -> list[Caption]:
        """Return captions that replace neither an edited one nor, where they are the tiny model's, a real model's."""
        if not self.policy.replace_edited:
            captions = [caption for caption in captions if not is_protected(info, caption.preset)]
        if not self.model.is_tiny or self.policy.overwrite:
            return list(captions)
        return [caption for caption in captions if not has_real_caption(info, caption.preset)]

    def _kept(self, captions: Sequence[Caption], info: Mapping[str, Any]) -> tuple[str, ...]:
        """Return messages about existing captions that new ones do not replace."""
        kept = [caption for caption in captions if caption not in self.to_save(captions, info)]
        edited = [caption.preset for caption in kept if is_protected(info, caption.preset)]
        notes: tuple[str, ...] = (f"kept the edited captions: {', '.join(edited)}",) if edited else ()
        if len(kept) > len(edited):
            notes += ("kept the captions of a real model: tiny-model output never overwrites them",)
        return notes

    def save(self, track: Track, captions: Sequence[Caption], info: Mapping[str, Any], clip: Clip) -> bool:
        """Merge captions into the track's sidecar, whose data was ``info``; return whether there were any.

        Left out are those that would replace what a person edited, also since ``info`` was read, and the tiny model's
        where they would replace a real model's. Raises SidecarError.
        """
        if not self.to_save(captions, info):
            return False
        update_sidecar(
            track.sidecar, lambda now: self.sidecar_keys(self.to_save(captions, now), now, clip), track.within
        )
        return True

    def provenance_of(self, caption: Caption, clip: Clip) -> dict[str, Any]:
        """Return how a caption of a clip was made."""
        return provenance(caption, clip, self.engine, self.model, self.policy.excerpt, self._run)

    def sidecar_keys(self, captions: Sequence[Caption], info: Mapping[str, Any], clip: Clip) -> dict[str, Any]:
        """Return the keys to set for captions in a sidecar that holds ``info``; none for no captions."""
        if not captions:
            return {}
        keys: dict[str, Any] = {caption_key(caption.preset): caption.text for caption in captions}
        keys[MODEL_KEY] = self.model.label
        keys[PROVENANCE_KEY] = {caption.preset: self.provenance_of(caption, clip) for caption in captions}
        for made in keys[PROVENANCE_KEY].values() if self.policy.improve else ():
            made["redone"] = True  # with another seed than the settings'
        for caption in captions:
            key = reasoning_key(caption.preset)
            if self.policy.keep_reasoning and caption.reasoning:
                keys[key] = caption.reasoning
            elif key in info:
                keys[key] = None  # that of another caption
        return keys


@dataclass(slots=True)
class _Work:
    """A track that is being captioned: what is known of it so far."""

    track: Track
    presets: Sequence[Preset]
    info: Mapping[str, Any]
    observer: Observer = UNOBSERVED
    clip: Clip | None = None
    results: list[Caption | Failure] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)


@contextlib.contextmanager
def open_captioner(
    settings: Settings,
    workload: Workload,
    model: Model | None = None,
    overwrite: bool = False,
    improve: bool = False,
    replace_edited: bool = False,
) -> Iterator[Captioner]:
    """Open a captioner as the settings say. Raises ModelError or ToolMissingError before any track is touched.

    ``workload`` is what it will be asked. ``model``: the settings' model, where the caller has resolved it already.
    ``overwrite``, ``improve``, ``replace_edited``: see Policy.
    """
    sweep_temporary_folders()
    model = model or resolve_model(settings)
    policy = Policy(
        sampling=settings.sampling,
        retries=settings.retries,
        excerpt=settings.excerpt(model.max_seconds),
        overwrite=overwrite,
        replace_edited=replace_edited,
        keep_reasoning=settings.keep_reasoning,
        improve=improve,
    )
    engine, reason = open_engine(settings, model, workload)
    with contextlib.closing(engine):
        yield Captioner(engine, model, policy, reason)
