"""What the audio encoder makes of each track, computed once and kept on disk.

The encoder is not trained, so its output for a track never changes: no epoch, no resumed training and no second
training of the same model encodes again. What is kept is the output before the projector, which may be trained, and of
real audio only: 1280 numbers a token, 25 tokens a second. Used in the worker process only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicflamingo_cli.types import WINDOW_SAMPLES

if TYPE_CHECKING:
    from torch import Tensor

_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A track's encoded audio.

    ``states``: (tokens, width), the encoder's output without what is padding. ``ids``: the place of the audio in a
    prompt, see model.Features. ``frames``: how many of each window are audio, (windows,); ``window``: of a whole one.
    """

    states: Tensor
    ids: Tensor
    frames: Tensor
    window: int

    @property
    def mask(self) -> Tensor:
        """Which frames are audio: (windows, frames)."""
        import torch

        return (torch.arange(self.window)[None, :] < self.frames[:, None]).long()


class FeatureStore:
    """Encoded audio on disk, a file a track; ``limit``: bytes of all of it, also of other trainings."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        folder.mkdir(parents=True, exist_ok=True)

    def path_of(self, key: str) -> Path:
        """Return the file of a track's features, which may be there or not."""
        return self._folder / f"{key}{_SUFFIX}"

    def read(self, key: str) -> Encoded | None:
        """Return a track's features; None where they are not there, or not readable."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.path_of(key)
        try:
            values = load_file(path)
            with contextlib.suppress(OSError):
                os.utime(path)  # what was used last is removed last
            return Encoded(values["states"], values["ids"], values["frames"], int(values["window"]))
        except (OSError, SafetensorError, KeyError):
            return None

    def write(self, key: str, encoded: Encoded) -> None:
        """Keep a track's features; the file is complete or not there. Raises OSError."""
        import torch
        from safetensors.torch import save_file

        path = self.path_of(key)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        values = {"states": encoded.states, "ids": encoded.ids, "frames": encoded.frames}
        try:
            save_file(
                {name: value.contiguous().cpu() for name, value in values.items()}
                | {"window": torch.tensor(encoded.window)},
                part,
            )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def make_room(self, needed: int, kept: set[str]) -> bool:
        """Delete the features that were used least recently until ``needed`` bytes fit below the limit.

        ``kept``: keys that stay. Returns whether they fit.
        """
        files = sorted(self._files(), key=lambda each: each[1])
        total = sum(size for _, _, size in files)
        for file, _, size in files:
            if total + needed <= self._limit:
                break
            if file.stem not in kept:
                with contextlib.suppress(OSError):
                    file.unlink()
                total -= size
        return total + needed <= self._limit

    def _files(self) -> Iterator[tuple[Path, float, int]]:
        """Yield each file with its time of last use and its size."""
        for file in self._folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                status = file.stat()
                yield file, status.st_mtime, status.st_size


def encode(model: Any, samples: Any) -> Encoded:
    """Return what a loaded model's encoder makes of mono samples at 16 kHz."""
    import torch

    features = model.features(samples)
    tower = model.net.model.audio_tower
    mask = features.mask.to(model.device)
    model.encoder_calls += 1
    with torch.inference_mode():
        states = tower(features.mel.to(model.device, model.dtype), input_features_mask=mask, return_dict=True)
        states = states.last_hidden_state
        _, lengths = tower._get_feat_extract_output_lengths(mask.sum(-1).to(torch.long))
        is_audio = torch.arange(states.shape[1], device=states.device)[None, :] < lengths[:, None]
        found = states[is_audio].clone().cpu()
    return Encoded(found, features.ids.clone(), mask.sum(-1).cpu(), int(mask.shape[-1]))


def bytes_of(samples: int, width: int, size: int) -> int:
    """Return how many bytes the features of a clip take. ``width``: of the encoder; ``size``: bytes of a number."""
    windows = -(-samples // WINDOW_SAMPLES)
    return samples * 25 // 16_000 * (width * size + 8) + 16 * windows + 4096
