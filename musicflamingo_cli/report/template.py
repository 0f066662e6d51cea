"""What the pages share: templates beside this module, URLs of audio, and which files a page may replace."""

from __future__ import annotations

import contextlib
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import IO

from musicflamingo_cli.exports.output import new_file, require_free_file

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def text_of(name: str) -> str:
    """Return the text of a file beside this module."""
    return resources.files(__package__ or __name__).joinpath(name).read_text(encoding="utf-8")


def fill(template: str, parts: Mapping[str, str]) -> str:
    """Return the template with each `{{name}}` replaced, in one pass, since parts may contain such placeholders."""
    page = _PLACEHOLDER.sub(lambda match: parts[match[1]], text_of(template))
    return page.encode("utf-8", "replace").decode()


def around(template: str, name: str, parts: Mapping[str, str]) -> tuple[str, str]:
    """Return what comes before and after `{{name}}` in the filled template, for a part too large for memory."""
    before, _, after = fill(template, {**parts, name: "\0"}).partition("\0")
    return before, after


def write(page: str, out: Path, marker: str) -> None:
    """Write a page completely, or not at all. Raises ConfigError where ``out`` exists and lacks the marker."""
    with new_page(out, marker) as file:
        file.write(page)


@contextlib.contextmanager
def new_page(out: Path, marker: str) -> Iterator[IO[str]]:
    """Yield a file that becomes ``out`` when the block ends without an error. Raises ConfigError as ``write`` does."""
    with new_file(out, overwrite=True, is_ours=lambda file: has_marker(file, marker)) as path, open_page(path) as file:
        yield file


def open_page(path: Path) -> IO[str]:
    """Open a new page for writing; a name that is not UTF-8 is shown with question marks."""
    return path.open("w", encoding="utf-8", errors="replace", newline="")


def require_free(out: Path, marker: str) -> None:
    """Raise ConfigError where ``write`` would."""
    require_free_file(out, overwrite=True, is_ours=lambda file: has_marker(file, marker))


def has_marker(file: Path, marker: str) -> bool:
    """Return whether a file is a page of ours with this marker, which a later one may replace."""
    with file.open("rb") as page:
        return marker.encode() in page.read(200)


def audio_url(audio: Path, folder: Path) -> str:
    """Return the URL of the audio for a page in ``folder``: relative, so that both can be moved or served together."""
    try:
        path = Path(os.path.relpath(audio.absolute(), folder.absolute())).as_posix()
    except ValueError:  # it is on another drive (Windows)
        return audio.absolute().as_uri()
    return urllib.parse.quote(path.encode("utf-8", "surrogateescape"), safe="/")
