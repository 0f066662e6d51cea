"""A folder of music whose every attribute is known: the whole job can be seen without a library of one's own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.errors import ConfigError

MARKER = ".musicflamingo-demo"  # in a folder that a demo made, and may fill again
# As libraries have them: an organised folder, a name with a comma and a hash, and three formats.
_NAMES = ("Slow Organ/full_mix.flac", "House, Loop #1.wav", "Fast Flute.mp3")


def claim_folder(folder: Path) -> None:
    """Make the demo's folder. Raises ConfigError for one that holds anything that is not a demo's."""
    if folder.exists() and not (folder.is_dir() and ((folder / MARKER).exists() or not any(folder.iterdir()))):
        raise ConfigError(f"{folder} is there already and no demo made it", "name a new folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def put_music(folder: Path) -> dict[Path, Mapping[str, str]]:
    """Put the tiny model's songs below ``folder``; the files, with what is true of each."""
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
    """Copy given files below ``folder``, so that the tiny model's words never land beside the originals.

    What is true of them nobody knows. Raises ConfigError for two of one name.
    """
    if len({file.name for file in files}) < len(files):
        raise ConfigError("two of the files have the same name", "give them to the demo one by one")
    return {Path(shutil.copy2(file, folder / file.name)): {} for file in files}
