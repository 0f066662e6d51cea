"""Audio from outside as clips. Those of late are kept: a client asks several questions about the same audio."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.system.temporary import folder_prefix
from musicflamingo_cli.types import Clip, Excerpt


@dataclass(slots=True)
class _Entry:
    folder: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    clip: Clip | None = None
    users: int = 0


class ClipStore:
    """Clips by the hash of their audio, at most ``most`` that nobody uses. A context manager: it removes all."""

    def __init__(self, excerpt: Excerpt, most: int) -> None:
        self._excerpt = excerpt
        self._most = most
        self._folder = Path(tempfile.mkdtemp(prefix=folder_prefix()))
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __enter__(self) -> ClipStore:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def clip_of(self, audio: bytes, suffix: str) -> Iterator[Clip]:
        """Yield the clip of encoded audio, made or kept. Raises AudioError and its like."""
        name = hashlib.sha256(audio).hexdigest()
        with self._lock:
            entry = self._entries.setdefault(name, _Entry(self._folder / name))
            self._entries.move_to_end(name)
            entry.users += 1
        try:
            with entry.lock:  # two questions about new audio make it once
                if entry.clip is None or not entry.clip.path.exists():  # temporary folders are swept of old files
                    entry.clip = self._made(entry.folder, audio, suffix)
                clip = entry.clip
            yield clip
        finally:
            with self._lock:
                entry.users -= 1
                self._drop_old(entry.clip is None and not entry.users, name)

    def _made(self, folder: Path, audio: bytes, suffix: str) -> Clip:
        folder.mkdir(parents=True, exist_ok=True)
        upload = folder / f"audio{suffix}"
        try:
            upload.write_bytes(audio)
            return write_clip(upload, folder / "clip.wav", self._excerpt)
        finally:
            upload.unlink(missing_ok=True)

    def _drop_old(self, is_useless: bool, name: str) -> None:
        unused = [each for each, entry in self._entries.items() if not entry.users]
        dropped = unused[: max(0, len(unused) - self._most)]
        for each in {*dropped, *([name] if is_useless else [])}:
            shutil.rmtree(self._entries.pop(each).folder, ignore_errors=True)
