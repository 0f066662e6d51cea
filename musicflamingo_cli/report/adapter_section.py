"""The part of a comparison's page, and the lines for a terminal, that say whether an adapter is better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from musicflamingo_cli.finetuning.evaluation import Claim, Evaluation

_SHOWN = 50  # lost or gained claims on the page
_HEAD = ("claims", "approved", "base", "adapter", "base, not approved", "adapter, not approved")


def evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    """Yield the result for a terminal."""
    yield evaluation.verdict
    yield f"  validation loss {evaluation.loss_base:.4f} before, {evaluation.loss_adapted:.4f} after"
    for row in _rows(evaluation):
        yield f"  {row[0]:11} approved {row[1]:>4}   base {row[2]:>4}   adapter {row[3]:>4}"
    for word in evaluation.words:
        yield f"  word {word.word!r}: approved {word.approved}, base {word.base}, adapter {word.adapted}"
    for claim in evaluation.lost:
        yield f"  lost: {claim.track.name} [{claim.preset}] {claim.kind} {claim.value}"


def evaluation_section(evaluation: Evaluation) -> str:
    """Return it as HTML."""
    words = [(each.word, str(each.approved), str(each.base), str(each.adapted)) for each in evaluation.words]
    parts = [
        f"<h2>{escape(evaluation.verdict)}</h2>",
        f"<p>{evaluation.captions} approved captions of {evaluation.tracks} tracks that the adapter was not trained on."
        f" Validation loss: {evaluation.loss_base:.4f} before, {evaluation.loss_adapted:.4f} after.</p>",
        _table(_HEAD, _rows(evaluation)),
    ]
    if words:
        parts += ["<h3>Words of your captions</h3>", _table(("captions with", "approved", "base", "adapter"), words)]
    for title, claims in (("Lost", evaluation.lost), ("Gained", evaluation.gained)):
        if claims:
            parts += [f"<h3>{title}: {len(claims)} claims</h3>", _table(("track", "preset", "claim"), _claims(claims))]
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    return [
        (kind.value, *map(str, (score.total, score.base, score.adapted, score.extra_base, score.extra_adapted)))
        for kind, score in evaluation.scores.items()
    ]


def _claims(claims: Sequence[Claim]) -> list[tuple[str, ...]]:
    return [(each.track.name, each.preset, f"{each.kind} {each.value}") for each in claims[:_SHOWN]]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"<th>{escape(each)}</th>" for each in head)
    body = "\n".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(each)}</td>' for each in row[1:])}</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table class="compared" style="--sides: 1">\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )
