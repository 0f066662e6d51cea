"""Write the page of `listen`: originals and what was made from their captions, side by side, without a script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from musicflamingo_cli._version import __version__
from musicflamingo_cli.listening.clips import MadeClip
from musicflamingo_cli.listening.round_trip import FIELDS, PresetCount, Result, RoundTrip, count_by_preset
from musicflamingo_cli.listening.sources import NOTHING
from musicflamingo_cli.listening.spectrogram import spectrogram_url
from musicflamingo_cli.report import template

MARKER = "<!-- clips of musicflamingo listen -->"  # identifies these pages: only they are replaced by a later one


def require_free_page(out: Path) -> None:
    """Raise ConfigError where ``out`` exists and is not such a page."""
    template.require_free(out, MARKER)


def write_listening(clips: Sequence[MadeClip], out: Path) -> None:
    """Write the page completely, or not at all. Raises ConfigError where ``out`` exists and is not such a page."""
    template.write(render(clips, out.parent), out, MARKER)


def render(clips: Sequence[MadeClip], folder: Path) -> str:
    """Return the page as HTML. ``folder`` is where it will be, since audio is referenced relative to it."""
    made = [clip for clip in clips if clip.failure is None]
    counts = count_by_preset(
        (clip.source.preset, clip.caption_read, clip.round_trip) for clip in made if clip.round_trip
    )
    models = ", ".join(dict.fromkeys(str(clip.request["model"]) for clip in made))
    licences = ", ".join(dict.fromkeys(str(clip.request["licence"]) for clip in made if clip.request["licence"]))
    summary = f"{len(made)} clips of {models}" if made else "No clip was made."
    parts = {
        "marker": MARKER,
        "version": __version__,
        "style": template.text_of("page.css"),
        "own_style": template.text_of("listening.css"),
        "summary": escape(summary + (f" (licence {licences})" if licences else "")),
        "table": _table(counts) if counts else "",
        "clips": "\n".join(_section(clip, folder) for clip in clips),
    }
    return template.fill("listening.html", parts)


def _table(counts: Sequence[PresetCount]) -> str:
    heads = "".join(f"<th>{escape(each)}</th>" for each in ("preset", "clips", *FIELDS, "all", "by chance"))
    rows = "".join(
        f"<tr><th>{escape(each.preset)}</th><td>{each.clips}</td>"
        + "".join(f"<td>{each.fields[name]}</td>" for name in FIELDS)
        + f"<td>{each.total}</td><td>{each.chance}</td></tr>"
        for each in counts
    )
    return (
        '<section class="card"><h2>What came back, by preset</h2><div class="scroll"><table class="back">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        "<p>By chance: of the claims of another track's caption, compared with the same clips.</p></section>"
    )


def _section(clip: MadeClip, folder: Path) -> str:
    name = f"<h2>{escape(str(clip.source.track.audio))} [{escape(clip.source.preset)}]</h2>"
    if clip.failure:
        hint = f" - {clip.failure.hint}" if clip.failure.hint else ""
        why = f'<p><span class="flag">{escape(clip.failure.reason)}</span><span class="soft">{escape(hint)}</span></p>'
        return f"<section>\n{name}\n{why}\n</section>"
    seconds = clip.samples / clip.rate
    sides = _side("original", clip.source.track.audio, seconds, folder) + _side("generated", clip.wav, seconds, folder)
    parts = [name, f'<div class="sides">{sides}</div>', *_caption(clip)]
    if clip.round_trip:
        parts += _back(clip.round_trip)
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _side(title: str, audio: Path, seconds: float, folder: Path) -> str:
    url = spectrogram_url(audio, seconds)
    alternative = f"spectrogram of the first {seconds:g} s, {title}"
    picture = (
        f'<img src="{url}" alt="{alternative}">' if url else '<p class="soft">no spectrogram: unreadable audio</p>'
    )
    player = f'<audio controls preload="none" src="{escape(template.audio_url(audio, folder))}"></audio>'
    return f'<div class="card"><h3>{title}</h3>{picture}{player}</div>'


def _caption(clip: MadeClip) -> Iterator[str]:
    if clip.source.preset == NOTHING:
        yield '<p class="caption soft">made without a caption</p>'
    else:
        cut = f"<del>{escape(clip.cut_off)}</del>" if clip.cut_off else ""
        yield f'<p class="caption">{escape(clip.caption_read)}{cut}</p>'
    settings = clip.request["settings"]
    facts = [f"{clip.tokens} T5 tokens"] if clip.tokens else []
    facts += ["edited by a person"] if clip.source.is_edited else ["approved"] if clip.source.is_approved else []
    facts += [f"{clip.samples / clip.rate:g} s at {clip.rate} Hz, {'stereo' if clip.channels == 2 else 'mono'}"]
    facts += [f"guidance {settings['guidance']:g}, temperature {settings['temperature']:g}, top-k {settings['top_k']}"]
    facts += [f"seed {settings['seed']}"]
    facts += [f"begins with the track's first {settings['start_seconds']:g} s"] if settings["start_seconds"] else []
    facts += ["follows the track's melody"] if settings["melody"] else []
    cut = '<span class="flag">the text encoder does not read the crossed-out end</span>' if clip.cut_off else ""
    yield f'<p class="facts">{cut}{escape("; ".join(facts))}</p>'


def _back(trip: RoundTrip) -> Iterator[str]:
    marks = {Result.CAME_BACK: "came back", Result.LOST: '<span class="flag">lost</span>', Result.UNKNOWN: "unknown"}
    rows = "".join(
        f"<tr><td>{escape(each.field)}</td><td>{escape(each.value)}</td><td>{marks[each.result]}</td>"
        f'<td class="soft">{escape(each.detail)}</td></tr>'
        for each in trip.claims
    )
    heads = "<thead><tr><th>claim</th><th>value</th><th></th><th></th></tr></thead>"
    if rows:
        yield f'<div class="scroll"><table class="back">{heads}<tbody>{rows}</tbody></table></div>'
    said = trip.caption or trip.failure or "no caption"
    yield f'<p class="facts">captioned again by {escape(trip.captioner)} [{escape(trip.preset)}]: {escape(said)}</p>'
