"""What only all captions together show: which are shared, which lengths are usual; by a first reading of the sidecars.

A million tracks have five million captions: of each there are only numbers in memory.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import SidecarError
from musicflamingo_cli.sidecars.captions import real_captions
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.types import Skipped, Track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Digests = NDArray[np.uint64]

T = TypeVar("T")
SHARED_CAPTION, UNUSUAL_LENGTH = "shared caption", "unusual length"  # flags of an entry; page.js filters by them

_THREADS = 4  # decoders and file systems release the interpreter lock
_BATCH = 64  # tracks read at a time, so that memory does not grow with those in the queue
_SHARED_SHOWN = 20
_OUTLIER_SCORE = 3.5  # of the modified z-score (Iglewicz and Hoaglin)
_FEWEST_FOR_OUTLIERS = 10  # captions of a preset


@dataclass(slots=True)
class Survey:
    """The dataset as a whole.

    ``skipped``: files that are not tracks of their own. ``failures``: folders that cannot be read, by kind.
    ``repeated``: for each preset the digests of captions that several tracks have, sorted. ``usual_words``: for each
    preset the fewest and the most words of a caption of usual length. ``most_shared``: preset and digest of the most
    frequent captions to the number of tracks, the most frequent first.
    """

    tracks: int = 0
    skipped: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    repeated: dict[str, Digests] = field(default_factory=dict)
    usual_words: dict[str, tuple[float, float]] = field(default_factory=dict)
    most_shared: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def shared(self) -> int:
        """How many captions several tracks have."""
        return sum(map(len, self.repeated.values()))

    def flags(self, captions: Mapping[str, str]) -> list[str]:
        """Return the flags of a track with these captions."""
        flags = []
        if any(self._is_shared(preset, text) for preset, text in captions.items()):
            flags.append(SHARED_CAPTION)
        if any(self._is_unusual(preset, text) for preset, text in captions.items()):
            flags.append(UNUSUAL_LENGTH)
        return flags

    def _is_shared(self, preset: str, text: str) -> bool:
        import numpy as np

        repeated, number = self.repeated[preset], np.uint64(digest(text))
        at = int(np.searchsorted(repeated, number))
        return at < len(repeated) and repeated[at] == number

    def _is_unusual(self, preset: str, text: str) -> bool:
        fewest, most = self.usual_words[preset]
        return not fewest <= len(text.split()) <= most


def survey(root: Path, presets: Sequence[str], follow_links: bool = False) -> Survey:
    """Read all sidecars below ``root``. ``follow_links``: see ``find_tracks``."""
    found = Survey()
    digests = {preset: array("Q") for preset in presets}  # of each track, in order; 0 where it has no caption
    words = {preset: array("I") for preset in presets}  # of each caption

    def read(track: Track) -> dict[str, str]:
        try:
            return real_captions(read_sidecar(track.sidecar), presets)
        except SidecarError:  # reported when the track is read
            return {}

    for batch in read_in_batches(read, _counted_tracks(root, follow_links, found)):
        found.tracks += len(batch)
        for captions in batch:
            for preset in presets:
                text = captions.get(preset)
                digests[preset].append(0 if text is None else digest(text))
                if text is not None:
                    words[preset].append(len(text.split()))
    _find_shared(found, digests)
    found.usual_words = {preset: _usual(numbers) for preset, numbers in words.items()}
    return found


def read_in_batches(read: Callable[[Track], T], tracks: Iterator[Track]) -> Iterator[list[T]]:
    """Yield what ``read`` returns for each track, in their order, several at a time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        while batch := list(islice(tracks, _BATCH)):
            yield list(pool.map(read, batch))


def digest(text: str) -> int:
    """Return a hash of a caption that ignores case and white space: 64 bits, not 0.

    Two of five million captions have the same one by chance in one of a million datasets.
    """
    return int.from_bytes(hashlib.sha256(" ".join(text.lower().split()).encode()).digest()[:8]) or 1


def _counted_tracks(root: Path, follow_links: bool, found: Survey) -> Iterator[Track]:
    """Yield the dataset's tracks; count other files."""
    for item in find_tracks(root, follow_links=follow_links):
        if isinstance(item, Track):
            yield item
        elif isinstance(item, Skipped) and item.failed:
            found.failures[item.kind] += 1
        else:
            found.skipped += 1


def _find_shared(found: Survey, digests: Mapping[str, array[int]]) -> None:
    """Find captions that several tracks share: a sign that the model does not get the audio."""
    import numpy as np

    most: list[tuple[int, int, int, str, int]] = []  # the most frequent and then the first first
    for number, (preset, of_tracks) in enumerate(digests.items()):
        values, first, counts = np.unique(np.asarray(of_tracks, np.uint64), return_index=True, return_counts=True)
        is_repeated = (counts > 1) & (values != 0)
        values, first, counts = values[is_repeated], first[is_repeated], counts[is_repeated]
        found.repeated[preset] = values
        for at in np.lexsort((first, -counts))[:_SHARED_SHOWN]:
            most.append((-int(counts[at]), int(first[at]), number, preset, int(values[at])))
    for count, _, _, preset, value in sorted(most)[:_SHARED_SHOWN]:
        found.most_shared[preset, value] = -count


def _usual(words: array[int]) -> tuple[float, float]:
    """Return the fewest and the most words of captions that are no outliers, by the median absolute deviation."""
    import numpy as np

    if len(words) < _FEWEST_FOR_OUTLIERS:
        return 0, float("inf")
    numbers = np.asarray(words, np.float64)
    middle = float(np.median(numbers))
    spread = max(1.0, float(np.median(np.abs(numbers - middle))) / 0.6745)
    return middle - _OUTLIER_SCORE * spread, middle + _OUTLIER_SCORE * spread
