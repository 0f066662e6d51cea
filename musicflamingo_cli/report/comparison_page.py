"""Write a comparison's page: one HTML file without a script; only the audio is separate."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from musicflamingo_cli._version import __version__
from musicflamingo_cli.captioning.comparison import PresetComparison, TrackComparison
from musicflamingo_cli.finetuning.evaluation import Evaluation
from musicflamingo_cli.report import template
from musicflamingo_cli.report.adapter_section import evaluation_section
from musicflamingo_cli.report.comparison_rows import Run, Tone, rows_of

MARKER = "<!-- a comparison of musicflamingo -->"  # identifies comparisons: only these are replaced by a later one
_ELEMENTS = {
    Tone.PLAIN: "{}",
    Tone.DIFFERS: "<mark>{}</mark>",
    Tone.REMARK: '<span class="soft">{}</span>',
    Tone.FAILED: '<span class="flag">{}</span>',
}


def require_free_page(out: Path) -> None:
    """Raise ConfigError where ``out`` exists and is not a comparison."""
    template.require_free(out, MARKER)


def write_comparison(tracks: Sequence[TrackComparison], out: Path, evaluation: Evaluation | None = None) -> None:
    """Write the page completely, or not at all. ``evaluation``: of an adapter, shown first.

    Raises ConfigError where ``out`` exists and is not a comparison.
    """
    template.write(render(tracks, out.parent, evaluation), out, MARKER)


def render(tracks: Sequence[TrackComparison], folder: Path, evaluation: Evaluation | None = None) -> str:
    """Return the page as HTML. ``folder`` is where it will be, since audio is referenced relative to it."""
    parts = {
        "marker": MARKER,
        "version": __version__,
        "style": template.text_of("page.css"),
        "own_style": template.text_of("comparison.css"),
        "evaluation": evaluation_section(evaluation) if evaluation else "",
        "tracks": "\n".join(_section(track, folder) for track in tracks),
    }
    return template.fill("comparison.html", parts)


def _section(track: TrackComparison, folder: Path) -> str:
    player = f'<audio controls preload="none" src="{escape(template.audio_url(track.track, folder))}"></audio>'
    tables = "\n".join(f"<h3>{escape(name)}</h3>\n{_table(preset)}" for name, preset in track.presets.items())
    return f"<section>\n<h2>{escape(str(track.track))}</h2>\n{player}\n{tables}\n</section>"


def _table(preset: PresetComparison) -> str:
    sides = [caption.side for caption in preset.captions]
    heads = "".join(f"<th>{escape(side.engine)}<small>{escape(side.model_name)}</small></th>" for side in sides)
    rows = "\n".join(
        f"<tr><th>{row.label}</th>{''.join(f'<td>{_cell(cell)}</td>' for cell in row.cells)}</tr>"
        for row in rows_of(preset)
    )
    start = f'<div class="scroll"><table class="compared" style="--sides: {len(sides)}">'
    return f"{start}\n<thead><tr><th></th>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"


def _cell(cell: tuple[Run, ...]) -> str:
    return "".join(_ELEMENTS[run.tone].format(escape(run.text)) for run in cell if run.text)
