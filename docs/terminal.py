"""Makes docs/terminal.svg, the README's picture, from a real run of `batch` on the demo's music.

Run it in a checkout after `make demo`: ``.venv/bin/python docs/terminal.py``.
"""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from musicflamingo_cli.demo.folder import put_music

COMMANDS = (
    "musicflamingo batch music --model tiny --preset brief --preset very_brief",
    "musicflamingo caption music/*.wav --model tiny --preset very_brief -q",
    "musicflamingo batch music --model tiny --preset brief --preset very_brief",
)


def main() -> None:
    screen = Console(record=True, width=110, file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        put_music(Path(folder) / "music")
        (Path(folder) / "music" / "broken.mp3").write_text("no music\n" * 99)
        for command in COMMANDS:
            screen.print(Text(f"$ {command}", style="bold green"))
            shown = subprocess.run(
                command.replace("musicflamingo", f"{sys.executable} -m musicflamingo_cli", 1),
                shell=True,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            ).stdout
            shown = shown.replace(str(Path.home()), "~")
            screen.print(Text(shown.rstrip() + "\n"))
    svg = screen.export_svg(title="musicflamingo (tiny model, synthesised songs)")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # no fonts from elsewhere
    (Path(__file__).parent / "terminal.svg").write_text(svg)


if __name__ == "__main__":
    main()
