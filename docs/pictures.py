"""Makes docs/pictures from real runs of the tiny model: `make pictures`, in a checkout with llama.cpp and Chromium.

The terminal's pictures are SVG, drawn from a real pseudo-terminal; the pages' are PNG, from a real browser; each in a
light and a dark theme. ``shown.json`` beside them records what they show, and `tests/test_pictures.py` fails when that
has changed since. Another moment, song or size of a picture is chosen here.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pyte
import soundfile
from playwright.sync_api import Browser, Page
from rich.color_triplet import ColorTriplet
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from musicflamingo_cli.sidecars.captions import PROVENANCE_KEY
from tests.fakes.screen import Screen
from tests.report.conftest import headless_chromium
from tiny_flamingo import music

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "pictures"
SHOWN = PICTURES / "shown.json"
ALBUMS = {
    "Harbour Lights": ("Slow Ferry", "Glass Stairs", "North of Here", "Low Tide"),
    "Night Shift": ("Neon Laundry", "Second Coffee", "Last Train Out", "Small Hours"),
    "Paper Orchestra": ("Folded Twice", "Marginalia", "Blue Ink", "Errata"),
}
RATE = 44_100  # Hz
# The background, the text, then the terminal's colours from black to white.
_COLOURS = {
    "light": "ffffff 24292f 24292f b42318 116329 825000 0956b2 823caa 00646e 57606a",
    "dark": "161b22 dce2e8 6e7681 ff7b72 56d364 e3b341 79c0ff d2a8ff 56d4dd b1bac4",
}
_CELL_COLOURS = {"brown": "yellow", "brightblack": "bright_black"}  # pyte's names for rich's
_PROGRAM = (sys.executable, "-m", "musicflamingo_cli")


def theme_of(colours: str) -> TerminalTheme:
    """Return rich's theme of colours written as in _COLOURS."""
    background, foreground, *rest = [ColorTriplet(*bytes.fromhex(colour)) for colour in colours.split()]
    return TerminalTheme(background, foreground, [(red, green, blue) for red, green, blue in rest])


THEMES = {name: theme_of(colours) for name, colours in _COLOURS.items()}


def main() -> None:
    """Make all pictures, and record what they show."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        home = Path(name)
        put_songs(home / "Music")
        for theme, colours in THEMES.items():
            for drawn, lines in (("batch", batch_lines(home)), ("caption", caption_lines(home))):
                draw_terminal(f"{drawn}-{theme}", lines, colours)
            draw_terminal(f"doctor-{theme}", doctor_lines(home), colours)
        finish_captions(home)
        with headless_chromium() as browser:
            for theme in THEMES:
                draw_report(browser, home, theme)
                draw_review(browser, home, theme)
        shown = {**sources_shown(), "caption": caption_headings(home), "doctor": doctor_labels(home)}
    SHOWN.write_text(json.dumps(shown, indent=2) + "\n", encoding="utf-8")


def put_songs(folder: Path) -> None:
    """Write the songs of ALBUMS, synthesised ones of 20 s each."""
    seed = 0
    for album, titles in ALBUMS.items():
        for number, title in enumerate(titles, 1):
            seed += 1
            path = folder / album / f"{number:02} {title}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(
                path, music.render(music.random_song(seed, seconds=(20.0, 20.0)), music.Recording(), RATE)[0], RATE
            )


# What a person sees in a terminal.


def batch_lines(home: Path) -> list[Text]:
    """Return the live view in the middle of a batch, from a run that is then ended; no sidecar is kept."""
    words = ("batch", "Music", "--model", "tiny", "--engine", "server", "--slots", "2")
    with terminal(words, home, 100) as screen:
        screen.wait_until(lambda: "6 of 12 tracks" in screen.text and "✓" in screen.text, "half is captioned", 120)
        lines = screen_lines(screen)
    for sidecar in (home / "Music").rglob("*.INFO"):
        sidecar.unlink()
    return [command_line(words), *lines]


def caption_lines(home: Path) -> list[Text]:
    """Return the whole output of `caption` on a song."""
    words = ("caption", "Music/Night Shift/01 Neon Laundry.flac", "--model", "tiny", "-q")
    with terminal(words, home, 100) as screen:
        screen.wait_for_end()
        return [command_line(words), *screen_lines(screen)]


def doctor_lines(home: Path) -> list[Text]:
    """Return the whole output of `doctor`."""
    words = ("doctor", "--model", "tiny")
    with terminal(words, home, 110) as screen:
        screen.wait_for_end(120)
        lines = screen_lines(screen)
    return [command_line(words), *(without_paths(line) for line in lines)]


def without_paths(line: Text) -> Text:
    """Return the line with what is of this machine alone replaced: the home folder, the checkout, the kernel."""
    plain = line.plain
    for path, name in ((str(DOCS.parent), "~/musicflamingo"), (str(Path.home()), "~")):
        plain = plain.replace(path, name)
    plain = re.sub(r"Linux-\S+?(?=[,)\s]|$)", "Linux", plain)
    if plain == line.plain:
        return line
    changed = Text(plain)
    for span in line.spans:  # only whole words at the beginning are coloured: the sign and the label
        changed.stylize(span.style, span.start, min(span.end, len(plain)))
    return changed


@contextmanager
def terminal(words: Sequence[str], home: Path, columns: int) -> Iterator[Screen]:
    """Run the program in a pseudo-terminal."""
    with Screen([*_PROGRAM, *words], home, columns, 60) as screen:
        yield screen


def command_line(words: Sequence[str]) -> Text:
    """Return the line that starts the program, as somebody typed it."""
    shown = " ".join(f'"{word}"' if " " in word else word for word in ("musicflamingo", *words))
    return Text.assemble(("$ ", "bright_black"), (shown, "bold"))


def screen_lines(screen: Screen) -> list[Text]:
    """Return the screen's lines with their colours, without empty ones at both ends."""
    lines = [coloured(row) for row in screen.cells]
    while lines and not lines[-1].plain:
        lines.pop()
    while lines and not lines[0].plain:
        lines.pop(0)
    return lines


def coloured(row: Sequence[pyte.screens.Char]) -> Text:
    """Return a row of the screen with its colours, without blanks at its end."""
    text = Text()
    for (colour, is_bold), cells in groupby(row, lambda cell: (cell.fg, cell.bold)):
        name = _CELL_COLOURS.get(colour, f"#{colour}" if re.fullmatch("[0-9a-f]{6}", colour) else colour)
        text.append(
            "".join(cell.data for cell in cells), Style(color=None if name == "default" else name, bold=is_bold)
        )
    text.rstrip()
    return text


def draw_terminal(name: str, lines: Sequence[Text], colours: TerminalTheme) -> None:
    """Draw lines as an SVG of the width that they need."""
    width = max(line.cell_len for line in lines) + 1
    screen = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in [*lines, Text(" ")]:  # rich cuts off the lower edge of the last line
        screen.print(line, no_wrap=True, crop=False)
    svg = screen.export_svg(title="musicflamingo, tiny model, synthesised songs", theme=colours, unique_id=name)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # no fonts from elsewhere
    svg = re.sub(r'stroke="rgba\(255,255,255,0\.35\)"', 'stroke="#8b949e"', svg)  # visible on white, too
    (PICTURES / f"{name}.svg").write_text(svg, encoding="utf-8")


# What a person sees in a browser.


def finish_captions(home: Path) -> None:
    """Caption, measure and check all songs; their captions then count as a real model's do, as on a user's pages."""
    dataset = home / "Music"
    for words in (("batch", "--model", "tiny", "--measure", "-q"), ("check", "-q")):
        subprocess.run([*_PROGRAM, words[0], dataset, *words[1:]], check=True, capture_output=True)
    for sidecar in dataset.rglob("*.INFO"):
        info = json.loads(sidecar.read_text(encoding="utf-8"))
        for made in info[PROVENANCE_KEY].values():
            made.pop("toy", None)
        sidecar.write_text(json.dumps(info), encoding="utf-8")


def draw_report(browser: Browser, home: Path, theme: str) -> None:
    """Draw the top of the report's page."""
    page = home / "report.html"
    subprocess.run([*_PROGRAM, "report", "Music", "--out", page, "-q"], cwd=home, check=True, capture_output=True)
    draw_page(browser, f"report-{theme}", page.as_uri(), "tr.track", theme)


def draw_review(browser: Browser, home: Path, theme: str) -> None:
    """Draw the review of one song."""
    command = [*_PROGRAM, "review", str(home / "Music"), "--read-only"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        try:
            url = server.stdout.readline().strip()
            draw_page(browser, f"review-{theme}", url, "#list [role=option]", theme, open_first)
        finally:
            server.terminate()


def open_first(page: Page) -> None:
    """Open the first song of the review's list."""
    page.keyboard.press("j")
    page.wait_for_timeout(1500)


def draw_page(
    browser: Browser, name: str, url: str, ready: str, theme: str, before: Callable[[Page], None] = lambda page: None
) -> None:
    """Draw a page, as it is in a window of 1200 by 800 pixels, when the element ``ready`` is there."""
    page = browser.new_page(
        viewport={"width": 1200, "height": 800}, color_scheme="dark" if theme == "dark" else "light"
    )
    page.goto(url)
    page.wait_for_selector(ready)
    before(page)
    page.wait_for_timeout(500)
    page.screenshot(path=PICTURES / f"{name}.png")
    page.close()


# What the pictures show, for the test.


def sources_shown() -> dict[str, str]:
    """Return a hash of what each picture of a moment or a page is made from.

    The live view's is that of the screens which its own test compares; the pages' is that of their files.
    """
    root = DOCS.parent
    package = root / "musicflamingo_cli"
    report = [package / "report" / name for name in ("page.html", "page.css", "page.js", "charts.js")]
    return {
        "batch": hash_of((root / "tests" / "cli" / "screens").glob("*.txt")),
        "report": hash_of(report),
        "review": hash_of(path for path in (package / "review" / "page").iterdir() if path.is_file()),
    }


def hash_of(files: Iterator[Path] | Sequence[Path]) -> str:
    """Return a hash over the files' names and contents."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def caption_headings(home: Path) -> list[str]:
    """Return the lines of `caption` that do not depend on the song: the presets' names."""
    return [line.plain for line in caption_lines(home) if re.fullmatch("[a-z_]+", line.plain)]


def doctor_labels(home: Path) -> list[str]:
    """Return the labels of `doctor`'s rows."""
    rows = (line.plain for line in doctor_lines(home)[1:])
    return [match[1] for row in rows if (match := re.match(r".  (\w[\w' .-]*?)  ", row))]


if __name__ == "__main__":
    main()
