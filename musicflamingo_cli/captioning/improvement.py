"""Asking again for captions with a contradicted claim: the answer with the fewest contradictions is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from musicflamingo_cli.captioning.judging import judged
from musicflamingo_cli.sidecars.captions import caption_key
from musicflamingo_cli.sidecars.checks import descriptions
from musicflamingo_cli.trust.check import check_captions
from musicflamingo_cli.trust.known import known_of
from musicflamingo_cli.trust.verdicts import Verdict
from musicflamingo_cli.types import Answer, Caption, Track


class Improvement:
    """Compares a track's new captions with those that are there; ``info`` is its sidecar's data."""

    def __init__(self, track: Track, info: Mapping[str, Any]) -> None:
        self._known = known_of(info, track.audio, descriptions(info))
        self._info = info
        self._best: dict[str, tuple[int, Caption]] = {}  # of the answers that are better than what is there

    def judged(self, caption: Caption) -> Caption | str:
        """Return a caption without a contradiction, or why another answer is wanted."""
        number, reasons = self._contradictions(caption.preset, caption.text)
        if not number:
            return caption
        before = self._info.get(caption_key(caption.preset))
        least = self._contradictions(caption.preset, before)[0] if isinstance(before, str) else number + 1
        if caption.preset in self._best:
            least = self._best[caption.preset][0]
        if number < least:
            self._best[caption.preset] = number, caption
        return reasons

    def best(self, preset: str) -> Caption | None:
        """Return the best answer so far that is better than the caption that is there."""
        return self._best[preset][1] if preset in self._best else None

    def _contradictions(self, preset: str, text: str) -> tuple[int, str]:
        check = check_captions({preset: text}, self._known)
        number = sum(each.verdict == Verdict.CONTRADICTED for each in check.claims)
        return number, "; ".join(check.reasons)


def verdict_on(answer: Answer, improvement: Improvement | None) -> Caption | str:
    """Return the caption that an answer makes, or why another one is wanted."""
    verdict = judged(answer)
    return improvement.judged(verdict) if improvement and isinstance(verdict, Caption) else verdict
