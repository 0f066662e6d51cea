"""Clips captioned again and measured, one after another, for their round trip."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from musicflamingo_cli.captioning.captioner import Captioner, open_captioner
from musicflamingo_cli.config import Settings
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.errors import TrackError
from musicflamingo_cli.listening.clips import MadeClip
from musicflamingo_cli.listening.round_trip import RoundTrip, returned_claims
from musicflamingo_cli.models.model import Model
from musicflamingo_cli.models.resolve import resolve_model
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.trust.measured import Measured
from musicflamingo_cli.trust.measuring import measure_track
from musicflamingo_cli.trust.verdicts import sure_of
from musicflamingo_cli.types import Workload

logger = logging.getLogger(__name__)
_OTHERWISE = "full"  # asked where a caption is not the answer to a preset


class Returning:
    """Captions clips again with the settings' model. Raises ModelError and ConfigError where there is none.

    ``presets``: those that can be asked, by name.
    """

    def __init__(self, settings: Settings, presets: Mapping[str, Preset]) -> None:
        self._settings = settings
        self._presets = presets
        self.model: Model = resolve_model(settings)

    def is_needed(self, clip: MadeClip) -> bool:
        """Return whether a clip lacks a round trip with this model that did not fail."""
        return (
            clip.failure is None
            and clip.source.caption is not None
            and (
                clip.round_trip is None or bool(clip.round_trip.failure) or clip.round_trip.captioner != self.model.name
            )
        )

    def run(self, clips: Sequence[MadeClip]) -> Iterator[MadeClip]:
        """Yield each clip when its round trip is known and saved. Raises ToolMissingError and ModelError."""
        with open_captioner(self._settings, Workload(len(clips), 1), self.model) as captioner:
            for clip in clips:
                clip.round_trip = self._round_trip(clip, captioner)
                try:
                    clip.save()
                except OSError as error:
                    logger.warning("%s: cannot save the round trip: %s", clip.json_file, error.strerror)
                yield clip

    def _round_trip(self, clip: MadeClip, captioner: Captioner) -> RoundTrip:
        preset = self._presets.get(clip.source.preset) or self._presets[_OTHERWISE]
        outcome = captioner.caption(track_for(clip.wav), [preset], {}, save=False)
        again = outcome.captions[0].text if outcome.captions else ""
        measured: Measured | None = None
        try:
            measured = measure_track(clip.wav)
        except TrackError as error:
            logger.info("%s: not measured: %s", clip.wav, error)
        tempo, key = sure_of(measured) if measured else (None, None)
        bpm, key_name = tempo.bpm if tempo else None, key.name if key else None
        return RoundTrip(
            captioner=self.model.name,
            preset=preset.name,
            caption=again,
            bpm=bpm,
            key=key_name,
            claims=tuple(returned_claims(clip.caption_read, bpm, key_name, again)),
            failure="" if again else "; ".join(each.reason for each in outcome.failures),
        )
