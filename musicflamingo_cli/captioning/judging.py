"""Whether an answer may become a caption, and messages about the clip it describes."""

from __future__ import annotations

import json
from collections.abc import Sequence

from musicflamingo_cli.errors import FailureKind
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import is_text
from musicflamingo_cli.text.cleaning import judge
from musicflamingo_cli.text.reasoning import split_reasoning
from musicflamingo_cli.text.schema import parsed
from musicflamingo_cli.types import Answer, Caption, Clip, Failure

REASONING_TOKENS = 1536  # that a model which thinks gets on top of a preset's limit
STILL_REASONING = "the model was still reasoning at the token limit"


def judged(answer: Answer) -> Caption | str:
    """Return the caption that an answer makes, or why it is refused."""
    prompt = answer.prompt
    if prompt.schema:
        return _judged_json(answer)
    reasoning, text = split_reasoning(answer.text)
    if reasoning and not text:
        return STILL_REASONING
    verdict = judge(text, answer.hit_limit, prompt.min_words, prompt.lines)
    return verdict.refusal or Caption(prompt.preset, verdict.text, answer, reasoning)


def _judged_json(answer: Answer) -> Caption | str:
    """Return the JSON of an answer that follows its prompt's schema, on one line, or why it is refused."""
    if answer.hit_limit:
        return "the JSON ended at the token limit"
    reasoning, text = split_reasoning(answer.text)
    value, problem = parsed(text, json.loads(answer.prompt.schema))
    line = json.dumps(value, ensure_ascii=False)
    if not problem and not is_text(line):
        problem = "it holds half a character"
    return problem or Caption(answer.prompt.preset, line, answer, reasoning)


def not_heard(answer: Answer, expected: int) -> Failure | None:
    """Return the failure of an answer for which the audio did not reach the model: it would be worse than none.

    ``expected``: the engine's audio tokens, where the answer does not carry those of its maker.
    """
    if answer.expected_audio_tokens is not None:
        expected = answer.expected_audio_tokens
    if answer.audio_tokens is None or answer.audio_tokens >= expected:
        return None
    return Failure(
        preset=answer.prompt.preset,
        kind=FailureKind.NOT_HEARD,
        reason=f"only {answer.audio_tokens} of the clip's {expected} audio tokens reached the model",
        hint="build the tested llama.cpp with: musicflamingo build",
    )


def clip_notes(clip: Clip) -> tuple[str, ...]:
    """Return messages about a clip that is only a part of its track, or only one channel of it."""
    notes = []
    if clip.was_cut:
        whole = f" of {clip.source_seconds:.0f} s" if clip.source_seconds else ""
        where = f"from {clip.start:.0f} s on" if clip.start else "the first"
        notes.append(f"used {where} {clip.seconds:.0f} s{whole}; the rest was left out")
    if clip.channel:
        notes.append(f"its channels cancel out in mono; used channel {clip.channel} alone")
    return tuple(notes)


def in_order(results: Sequence[Caption | Failure], presets: Sequence[Preset]) -> list[Caption]:
    """Return the captions in the order of the presets, whatever order they arrived in."""
    found = {result.preset: result for result in results if isinstance(result, Caption)}
    return [found[preset.name] for preset in presets if preset.name in found]
