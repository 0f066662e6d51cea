"""Clips for sources: those that are there already are kept, the others are made and saved one by one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as Yielding
from pathlib import Path

from musicflamingo_cli.config import GenerationSettings, Settings
from musicflamingo_cli.dataset.tracks import NO_TRACKS
from musicflamingo_cli.errors import AudioError, ConfigError, FailureKind, kind_of
from musicflamingo_cli.listening.clips import MadeClip, existing, is_of_another_track, request_for
from musicflamingo_cli.listening.excerpt import write_excerpt
from musicflamingo_cli.listening.generator import MusicGenerator
from musicflamingo_cli.listening.messages import ClipOrder, Made, Step
from musicflamingo_cli.listening.sources import Source
from musicflamingo_cli.models.generators import Generator
from musicflamingo_cli.system.temporary import folder_prefix, is_abandoned, owner
from musicflamingo_cli.types import Failure

_HIDDEN = ".musicflamingo-"  # begins the names of files that are not complete


class ListenJob:
    """Makes a clip of each source in the folder ``out``. ``melody``: each follows its track's melody.

    Raises ConfigError where the model takes no melody, or ``out`` cannot be made.
    """

    def __init__(
        self, out: Path, model: Generator, settings: Settings, generation: GenerationSettings, melody: bool = False
    ) -> None:
        if melody and not model.takes_melody:
            raise ConfigError(
                f"{model.name} takes no melody", "leave --melody out, or use --model facebook/musicgen-melody"
            )
        self._out = out
        self._model = model
        self._settings = settings
        self._generation = generation
        self._melody = melody
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / NO_TRACKS).touch()
        except OSError as error:
            raise ConfigError(
                f"cannot make the folder {out}: {error.strerror}", "name another one with --out"
            ) from error
        for left in out.glob(f"{_HIDDEN}*.wav"):  # by a run that was killed outright
            if is_abandoned(left.name.removeprefix(_HIDDEN).rpartition("-")[0]):
                left.unlink(missing_ok=True)

    def clips(self, sources: Sequence[Source], on_step: Callable[[Step], None]) -> Yielding[MadeClip, None, None]:
        """Yield a clip, or why there is none, for each source; first those that need no work.

        ``on_step`` gets the progress of the clips in progress. Raises ModelError and ToolMissingError, which concern
        all of them.
        """
        to_make = []
        for source in sources:
            clip = MadeClip(source, self._out / f"{source.name}.wav", failure=source.failure)
            if source.failure is None:
                clip.request = request_for(source, self._model, self._generation, self._melody)
                if is_of_another_track(clip):
                    clip.wav = self._out / f"{source.name_of_its_own}.wav"
                found = existing(clip)
                if found is None:
                    to_make.append(clip)
                    continue
                clip = found
            yield clip
        if to_make:
            with tempfile.TemporaryDirectory(prefix=folder_prefix(), ignore_cleanup_errors=True) as folder:
                yield from self._make(to_make, Path(folder), on_step)

    def _make(self, clips: Sequence[MadeClip], folder: Path, on_step: Callable[[Step], None]) -> Iterator[MadeClip]:
        orders = []
        for number, clip in enumerate(clips):
            try:
                orders.append(self._order(number, clip, folder))
            except AudioError as error:
                clip.failure = Failure.for_preset(clip.source.preset, error)
                yield clip
        with contextlib.closing(MusicGenerator(self._model, self._settings, self._generation)) as generator:
            try:
                for made in generator.make(orders, on_step):
                    clip = clips[made.number]
                    self._finish(clip, made)
                    yield clip
            finally:
                for order in orders:
                    Path(order.target).unlink(missing_ok=True)

    def _order(self, number: int, clip: MadeClip, folder: Path) -> ClipOrder:
        """Return the order for a clip, with the audio that it needs. Raises AudioError."""
        source, model = clip.source, self._model
        start = melody = ""
        samples = 0
        if seconds := self._generation.start_seconds:
            start = str(folder / f"{number}.start.wav")
            samples = write_excerpt(source.track.audio, Path(start), seconds, model.rate, model.channels)
        if self._melody:
            melody = str(folder / f"{number}.melody.wav")
            write_excerpt(source.track.audio, Path(melody), self._generation.seconds, model.rate, 1)
        return ClipOrder(
            number=number,
            text=source.caption,
            target=str(self._unfinished(number)),
            start=start,
            start_samples=samples,
            melody=melody,
        )

    def _unfinished(self, number: int) -> Path:
        """Return where the worker writes a clip: hidden, and in the folder that it will be renamed in."""
        return self._out.absolute() / f"{_HIDDEN}{owner()}-{number}.wav"

    def _finish(self, clip: MadeClip, made: Made) -> None:
        """Give a clip its name and write its JSON file."""
        if made.error:
            hint = "use a smaller model (--model facebook/musicgen-small) or fewer seconds; see more with -v"
            clip.failure = Failure(preset=clip.source.preset, kind=FailureKind.ENGINE, reason=made.error, hint=hint)
            return
        clip.tokens, clip.read = made.tokens, made.read
        clip.samples, clip.rate, clip.channels = made.samples, made.rate, made.channels
        try:
            clip.wav.unlink(missing_ok=True)  # of an earlier clip: no JSON file describes another's audio
            clip.save()  # first: a WAV file without it would be taken for somebody else's
            os.replace(self._unfinished(made.number), clip.wav)
        except OSError as error:
            reason = f"cannot save the clip: {error.strerror}"
            clip.failure = Failure(
                preset=clip.source.preset, kind=kind_of(error), reason=reason, hint="free some space"
            )
