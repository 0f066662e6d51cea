"""Captions of a track's segments: the track is decoded once, each segment is a clip of its own and saved at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from musicflamingo_cli.audio.beats import Beats
from musicflamingo_cli.audio.clip import cut_clip, prepared
from musicflamingo_cli.audio.segments import Cutting, Span, spans_of
from musicflamingo_cli.captioning.captioner import Captioner
from musicflamingo_cli.captioning.judging import clip_notes, in_order
from musicflamingo_cli.captioning.saving import bug_failure, operating_system_failure
from musicflamingo_cli.captioning.worker_pool import WorkerPool
from musicflamingo_cli.dataset.selection import Selection
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer, Stage
from musicflamingo_cli.errors import FailureKind, ModelError, SilentError, ToolMissingError, TrackError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import MEASURED_KEY
from musicflamingo_cli.sidecars.merge import update_sidecar
from musicflamingo_cli.sidecars.segments import Segment, keys_with, segments_of
from musicflamingo_cli.types import SAMPLE_RATE, Caption, CaptionedSegment, Clip, Excerpt, Failure, Outcome, Track

LONGEST_TRACK = 12 * 3600.0  # seconds: 2.7 GB as a clip, below the limit of WAV
_MOST_BROKEN = 3  # segments that the engine could not answer, after which the rest of a track is left for a retry


class SegmentCaptioner:
    """Captions the segments of tracks (see ``retries.TrackCaptioner``). ``selection`` says how they are cut."""

    def __init__(self, captioner: Captioner, selection: Selection) -> None:
        assert selection.cutting is not None
        self._captioner = captioner
        self._selection = selection
        self._cutting: Cutting = selection.cutting
        self._is_stopped = False

    @property
    def slots(self) -> int:
        """How many tracks are in progress at once; all their segments share the engine's slots."""
        return self._captioner.slots

    def close(self) -> None:
        """Stop all work, from any thread; see ``Engine.close``."""
        self._is_stopped = True
        self._captioner.close()

    def caption(
        self,
        track: Track,
        presets: Sequence[Preset],
        info: Mapping[str, Any],
        *,
        save: bool,
        observer: Observer = UNOBSERVED,
    ) -> Outcome:
        """Ask ``presets`` about each segment of a track that wants them; ``info`` is its sidecar's data.

        Each segment is saved as soon as it is finished (always: ``save`` is for other captioners), so a kill loses only
        those in progress. Nothing about one track raises. Raises ToolMissingError and ModelError.
        """
        run = _TrackRun(track, presets, info)
        observer.reached(Stage.PREPARING)
        try:
            with prepared(track.audio, self._excerpt(), exact=True) as run.whole:
                self._caption_segments(run, run.whole, observer)
        except (ToolMissingError, ModelError):
            raise
        except TrackError as error:
            run.failures.append(Failure.for_track(error))
        except OSError as error:
            run.failures.append(operating_system_failure(error))
        except Exception as error:  # a bug, ours or a decoder's: one bad file must not end the run
            run.failures.append(bug_failure(error))
        return run.outcome()

    def _excerpt(self) -> Excerpt:
        cutting, policy = self._cutting, self._captioner.policy
        longest = min(LONGEST_TRACK, cutting.max_seconds or LONGEST_TRACK)
        return Excerpt(cutting.start, cutting.fraction, max_seconds=longest, min_seconds=policy.excerpt.min_seconds)

    def _caption_segments(self, run: _TrackRun, whole: Clip, observer: Observer) -> None:
        snap = Beats(whole.path, whole.start).nearest if self._cutting.align else None
        spans = spans_of(whole.start, whole.start + whole.samples / SAMPLE_RATE, self._cutting, snap)
        record = {**self._cutting.as_json(), "audio": dict(whole.source or {})}
        known = {segment.span: segment for segment in segments_of(run.info)}
        tasks = [task for span in spans if (task := self._task(run, whole, known.get(span) or Segment(span)))]
        with WorkerPool(self._answered, lambda: self._captioner.slots) as pool:
            observer.reached(Stage.HEARING)
            for number, result in enumerate(pool.results(tasks), 1):
                observer.answered(number, len(tasks))
                saved = self._saved(run, result, spans, record)
                run.add(replace(result, captions=saved), was_saved=bool(saved))
                if self._is_stopped or run.broken >= _MOST_BROKEN:
                    break
            for result in pool.remaining():
                saved = self._saved(run, result, spans, record)
                run.add(replace(result, captions=saved), was_saved=bool(saved))

    def _task(self, run: _TrackRun, whole: Clip, segment: Segment) -> _Task | None:
        presets = self._selection.presets_of_segment(run.track, run.info, segment, run.presets)
        return _Task(run.track, run.info, segment, presets, whole) if presets else None

    def _answered(self, task: _Task) -> _Result:
        """Cut a segment and ask about it, in a thread of its own."""
        span = task.segment.span
        target = task.whole.path.with_name(f"{span.start}-{span.end}.wav")
        try:
            clip = cut_clip(task.whole, span, target)
            # A measured tempo or key is the whole track's, and need not be this segment's.
            known = {key: value for key, value in task.info.items() if key != MEASURED_KEY}
            results = list(self._captioner.ask(clip, task.track, task.presets, known))
        except SilentError:
            return _Result(task.segment, is_silent=True)
        finally:
            target.unlink(missing_ok=True)
        return _Result(
            segment=task.segment,
            captions=in_order(results, task.presets),
            failures=[each for each in results if isinstance(each, Failure)],
            clip=clip,
        )

    def _saved(
        self, run: _TrackRun, result: _Result, spans: Sequence[Span], record: Mapping[str, Any]
    ) -> list[Caption]:
        """Merge a segment's captions into the sidecar; return those that were saved. Raises SidecarError, OSError."""
        if not (result.captions or result.is_silent):
            return []
        saved: list[Caption] = []

        def keys(now: Mapping[str, Any]) -> Mapping[str, Any]:
            known = {each.span: each for each in segments_of(now)}
            segment = known.get(result.segment.span) or Segment(result.segment.span)
            saved[:] = self._captioner.to_save(result.captions, segment.as_info())
            if result.is_silent:
                return keys_with(now, spans, replace(segment, is_silent=True), record)
            return keys_with(now, spans, self._with(segment, saved, result.clip), record) if saved else {}

        update_sidecar(run.track.sidecar, keys, run.track.within)
        return saved

    def _with(self, segment: Segment, captions: Sequence[Caption], clip: Clip | None) -> Segment:
        assert clip is not None
        keeps = self._captioner.policy.keep_reasoning
        return segment.with_captions(
            captions={caption.preset: caption.text for caption in captions},
            provenance={caption.preset: self._captioner.provenance_of(caption, clip) for caption in captions},
            reasoning={each.preset: each.reasoning for each in captions if keeps and each.reasoning},
        )


@dataclass(frozen=True, slots=True)
class _Task:
    """A segment and what to ask about it. ``whole``: the track's clip."""

    track: Track
    info: Mapping[str, Any]
    segment: Segment
    presets: Sequence[Preset]
    whole: Clip


@dataclass(frozen=True, slots=True)
class _Result:
    """The answers about a segment, accepted or not; none where it is silent."""

    segment: Segment
    captions: Sequence[Caption] = ()
    failures: Sequence[Failure] = ()
    is_silent: bool = False
    clip: Clip | None = None


@dataclass(slots=True)
class _TrackRun:
    """A track whose segments are being captioned: what is known so far. ``broken``: segments without any answer."""

    track: Track
    presets: Sequence[Preset]
    info: Mapping[str, Any]
    whole: Clip | None = None
    segments: list[CaptionedSegment] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    silent: int = 0
    saved: bool = False
    broken: int = 0
    started: float = field(default_factory=time.monotonic)

    def add(self, result: _Result, was_saved: bool) -> None:
        """Take what came of a segment. An interrupt is one failure, however many segments it concerns."""
        span = result.segment.span
        self.saved |= was_saved
        self.silent += result.is_silent
        if result.captions:
            self.segments.append(CaptionedSegment(span.start, span.end, tuple(result.captions)))
        interrupts = [each for each in result.failures if each.kind == FailureKind.INTERRUPTED]
        others = [replace(each, reason=f"at {span}: {each.reason}") for each in result.failures]
        self.broken += bool(others) and not result.captions and all(each.kind.is_transient for each in others)
        if not interrupts:
            self.failures += others
        elif not any(each.kind == FailureKind.INTERRUPTED for each in self.failures):
            self.failures.append(interrupts[0])

    def outcome(self) -> Outcome:
        """Return what came of the track, saved as far as it goes."""
        notes = clip_notes(self.whole) if self.whole else ()
        if self.silent:
            notes += (f"{self.silent} segments are silent",)
        return Outcome(
            track=self.track,
            failures=tuple(self.failures),
            notes=notes,
            audio_seconds=sum(each.end - each.start for each in self.segments),
            seconds=time.monotonic() - self.started,
            saved=self.saved,
            segments=tuple(sorted(self.segments, key=lambda each: each.start)),
        )
