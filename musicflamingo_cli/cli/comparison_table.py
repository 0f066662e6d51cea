"""A comparison as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musicflamingo_cli.captioning.comparison import PresetComparison
from musicflamingo_cli.cli.console import printable
from musicflamingo_cli.report.comparison_rows import Row, Run, Tone, rows_of

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_STYLES = {Tone.PLAIN: "", Tone.DIFFERS: "bold yellow", Tone.REMARK: "dim", Tone.FAILED: "red"}


def table_of(preset: PresetComparison) -> Table:
    """Return the table of one preset: a column a side."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1), pad_edge=False)
    table.add_column("", no_wrap=True, style="dim")
    for caption in preset.captions:
        head = Text.assemble((caption.side.engine, "bold"), "\n", (printable(caption.side.model_name), "dim"))
        table.add_column(head, ratio=1, overflow="fold")
    for row in rows_of(preset):
        table.add_row(row.label, *_cells(row))
    return table


def _cells(row: Row) -> list[Text]:
    return [_text(cell) for cell in row.cells]


def _text(cell: tuple[Run, ...]) -> Text:
    from rich.text import Text

    return Text.assemble(*((printable(run.text), _STYLES[run.tone]) for run in cell))
