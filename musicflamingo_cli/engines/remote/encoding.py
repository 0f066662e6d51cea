"""A clip as an endpoint takes it: 16-bit audio in base64."""

from __future__ import annotations

import base64
import io
from enum import StrEnum

from musicflamingo_cli.types import Clip


class AudioFormat(StrEnum):
    """How audio is sent; the names are those of the chat API."""

    FLAC = "flac"  # without loss, about half of WAV
    WAV = "wav"  # what any endpoint reads


def encoded(clip: Clip, form: AudioFormat) -> str:
    """Return the clip in base64; 16 bits are more than the model's spectrogram resolves (80 dB)."""
    import soundfile

    samples, rate = soundfile.read(clip.path, dtype="float32")
    with io.BytesIO() as file:
        soundfile.write(file, samples, rate, format=form.upper(), subtype="PCM_16")
        return base64.b64encode(file.getvalue()).decode("ascii")


def audio_part(data: str, form: AudioFormat) -> dict[str, object]:
    """Return the part of a chat message that holds the audio."""
    return {"type": "input_audio", "input_audio": {"data": data, "format": str(form)}}
