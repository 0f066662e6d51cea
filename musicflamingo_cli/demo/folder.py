"""A folder of music with known attributes, so that the demo needs no music library."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.errors import ConfigError

MARKER = ".musicflamingo-demo"  # in folders that a demo made and may use again
# As in real libraries: a subfolder, a name with a comma and a hash, and three formats.
_NAMES = ("Slow Organ/full_mix.flac", "House, Loop #1.wav", "Fast Flute.mp3")


def claim_folder(folder: Path) -> None:
    """Create the demo's folder. Raises ConfigError for a file, and for a folder with files that no demo made."""
    if folder.exists() and not (folder.is_dir() and ((folder / MARKER).exists() or not any(folder.iterdir()))):
        raise ConfigError(f"{folder} exists and no demo made it", "name a new folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def put_music(folder: Path) -> dict[Path, Mapping[str, str]]:
    """Put the tiny model's songs into ``folder``; return the files with the known attributes of each."""
    import soundfile

    put = {}
    for song, name in zip(songs(), _NAMES, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == song.path.suffix:
            shutil.copyfile(song.path, path)
        else:
            soundfile.write(path, *soundfile.read(song.path))
        put[path] = song.truth
    return put


def copy_music(files: Sequence[Path], folder: Path) -> dict[Path, Mapping[str, str]]:
    """Copy files into ``folder``, so that no tiny-model captions are written beside the originals.

    Returns the copies, with no known attributes; a file that is in the folder already is its own copy. Raises
    ConfigError for two files that would share a sidecar.
    """
    copies = [folder / file.name for file in files]
    if len({track_for(copy).sidecar for copy in copies}) < len(files):
        raise ConfigError("two of the files would share a sidecar", "run the demo for each of them, with another --out")
    for file, copy in zip(files, copies, strict=True):
        if not (copy.exists() and copy.samefile(file)):
            shutil.copy2(file, copy)
    return {copy: {} for copy in copies}
