"""WebDataset: tar shards of audio and JSON pairs, for stable-audio-tools and other readers of such tars."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import IO, Any

from musicflamingo_cli.exports.job import CHANGES_COLUMN, Job, json_text
from musicflamingo_cli.exports.rows import Row, TrackFacts
from musicflamingo_cli.exports.stable_audio import write_config

STABLE_AUDIO_READS = (".flac", ".wav", ".mp3", ".m4a", ".ogg", ".opus", ".aiff", ".aif")  # its AUDIO_KEYS


def write_webdataset(job: Job) -> None:
    """Write `00000.tar`, `00001.tar`, … and a dataset config for stable-audio-tools.

    With a validation split the tars are in `train/` and `validation/`. A sample's key is its number: WebDataset ends a
    key at the first dot of a name, and file names may have several. Tar members carry no times and no owners, so that
    the same dataset always gives the same bytes.
    """
    shards: dict[str, _ShardWriter] = {}

    def write(row: Row) -> None:
        if row.split not in shards:
            shards[row.split] = _ShardWriter(job.building / row.split, job.target.shard_size)
        with job.audio_file(row) as source:
            shards[row.split].add(row, source, job.facts(row))
        if row.path.suffix.lower() not in STABLE_AUDIO_READS:
            job.stats.remark(f"are {row.path.suffix.lower()}, which stable-audio-tools does not decode")

    try:
        job.for_each(write)
    finally:
        for shard in shards.values():
            shard.close()
    for split, shard in shards.items():
        if shard.samples:
            write_config(job, split, "wds", {"path": str(job.target.out.absolute() / split)})


class _ShardWriter:
    """Writes samples into one tar after another, ``size`` samples each."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size
        self.samples = 0
        self._file: IO[bytes] | None = None
        self._tar: tarfile.TarFile | None = None

    def add(self, row: Row, source: Path, facts: TrackFacts) -> None:
        """Write the audio ``source`` and a row's JSON. Raises OSError; the tar is then as before."""
        about = {
            "text": row.text,
            "prompt": row.text,
            "seconds_total": facts.seconds,
            "sample_rate": facts.rate,
            "path": row.track_path.as_posix(),
            "preset": row.preset,
            "captions": dict(row.captions),
        }
        if row.cut:
            about |= {"start": row.cut.span.start, "end": row.cut.span.end}
        if row.changes:
            about[CHANGES_COLUMN] = row.change_list
        text = json_text(about).encode()
        tar = self._current()
        begin = tar.offset
        try:
            with source.open("rb") as audio:
                size = audio.seek(0, io.SEEK_END)
                audio.seek(0)
                self._write(tar, row.path.suffix, size, audio)
            self._write(tar, ".json", len(text), io.BytesIO(text))
        except OSError:  # half a member would damage the samples after it
            self._truncate(tar, begin)
            raise
        self.samples += 1

    def close(self) -> None:
        """Close the current tar; one without samples is removed."""
        if self._tar is not None and self._file is not None:
            is_empty = not self._tar.offset  # its first sample failed, and it is the last one
            self._tar.close()
            self._file.close()
            if is_empty:
                Path(self._file.name).unlink()

    def _current(self) -> tarfile.TarFile:
        """Return the tar that the next sample goes to."""
        if self._tar is None or (self.samples % self._size == 0 and self._tar.offset):
            self.close()
            self._folder.mkdir(exist_ok=True)
            self._file = (self._folder / f"{self.samples // self._size:05d}.tar").open("wb")
            self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        return self._tar

    def _truncate(self, tar: tarfile.TarFile, offset: int) -> None:
        """Remove what was written to a tar after ``offset`` (bytes)."""
        assert self._file is not None
        self._file.seek(offset)
        self._file.truncate()
        tar.offset = offset

    def _write(self, tar: tarfile.TarFile, suffix: str, size: int, content: Any) -> None:
        """Write ``size`` bytes of the file object ``content`` as a member of the current sample."""
        member = tarfile.TarInfo(f"{self.samples:08d}{suffix.lower()}")
        member.size, member.mode = size, 0o644
        tar.addfile(member, content)
