"""Fields, a short version and a summary of a track, by the language model alone: from the captions that are there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from musicflamingo_cli.captioning.captioner import Captioner
from musicflamingo_cli.captioning.judging import REASONING_TOKENS, judged
from musicflamingo_cli.captioning.provenance import RunIdentity, provenance
from musicflamingo_cli.captioning.worker_pool import SlotGate
from musicflamingo_cli.errors import EngineError, FailureKind, TrackError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import (
    PROVENANCE_KEY,
    caption_key,
    is_edited,
    is_of_tiny_model,
    provenance_of,
)
from musicflamingo_cli.sidecars.checks import SHORT, SUMMARY, descriptions, digests_of, segment_descriptions
from musicflamingo_cli.sidecars.merge import update_sidecar
from musicflamingo_cli.text.cleaning import normalize_text
from musicflamingo_cli.text.t5_tokens import estimate
from musicflamingo_cli.trust.prose import kept_fields, unsupported
from musicflamingo_cli.trust.voices import Voice
from musicflamingo_cli.types import NO_AUDIO, Answer, Caption, Excerpt, Failure, Prompt, Track

FIELDS = "fields"
_WORDS_PER_TOKEN = 0.6  # of English prose, with room to spare
_TERM = {"type": "string", "maxLength": 40}
_TERMS = {"type": "array", "items": _TERM, "maxItems": 10}
_PROPERTIES: dict[str, Any] = {
    "genre": _TERM,
    "subgenres": _TERMS,
    "mood": _TERMS,
    "instruments": _TERMS,
    "tempo_bpm": {"type": "integer"},
    "key": {"type": "string", "maxLength": 20},
    "time_signature": {"type": "string", "maxLength": 8},
    "vocals": {"type": "string", "enum": ["", *map(str, Voice)]},
    "language": _TERM,
    "summary": {"type": "string", "maxLength": 300},
}
SCHEMA: dict[str, Any] = {"type": "object", "properties": _PROPERTIES, "required": list(_PROPERTIES)}
_FIELDS_PRESET = Preset(
    name=FIELDS,
    prompt=(
        "Fill in the fields of a JSON object from the description of a music track below, in its own words:"
        f" {', '.join(_PROPERTIES)}. vocals is one of {', '.join(Voice)}. Leave empty what it does not say, with 0 as"
        " tempo_bpm. Answer with the JSON only."
    ),
    max_tokens=1500,
    schema=json.dumps(SCHEMA),
)
_SUMMARY_PRESET = Preset(
    name=SUMMARY,
    prompt=(
        "Below are descriptions of the successive segments of one music track, with their times. Describe the whole"
        " track from them in one paragraph of at most 100 words: what it is, and how it develops. Add nothing to them."
    ),
    max_tokens=300,
)
# Characters of segments' descriptions, about 4,000 tokens. Of more, the first sentences are used; of more of these,
# those of every second, third, … segment.
_MOST_OF_SEGMENTS = 16_000
_FIRST_SENTENCE = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the second pass makes. ``short``: the most T5 tokens of the short version, None for none.

    ``summary``: one of the whole track, from the captions of its segments.
    """

    fields: bool = False
    short: int | None = None
    summary: bool = False

    @property
    def presets(self) -> list[Preset]:
        """The questions, without the captions that they are about."""
        found = [_FIELDS_PRESET] if self.fields else []
        if self.short is not None:
            words = max(4, int(self.short * _WORDS_PER_TOKEN))
            text = f"Shorten the description of a music track below to at most {words} words. Add nothing to it."
            found.append(Preset(SHORT, text, max_tokens=2 * self.short + 32))
        if self.summary:
            found.append(_SUMMARY_PRESET)
        return found


@dataclass(slots=True)
class Derived:
    """What was made of one track's captions: ``keys`` of the sidecar, without provenance, and what failed."""

    values: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


class SecondPass:
    """Asks an open captioner's engine. From several threads: as many ask at once as it has slots."""

    def __init__(self, captioner: Captioner, wanted: Wanted, overwrite: bool = False) -> None:
        self._captioner = captioner
        self._wanted = wanted
        self._overwrite = overwrite
        self._run = RunIdentity(captioner.model)
        self._slots = SlotGate(lambda: captioner.engine.slots)

    def derive(self, info: Mapping[str, Any]) -> Derived:
        """Return what is missing or outdated of a sidecar's data, made anew. Nothing about one track raises."""
        result = Derived()
        captions = self._captions(info)
        presets = [preset for preset in self._wanted.presets if self._is_wanted(info, preset, captions)]
        if not captions or not presets:
            return result
        prose = self._prose(captions)
        for preset in presets:
            try:
                with self._slots:
                    answer = self._accepted(preset, prose)
            except TrackError as error:
                answer = Failure.for_preset(preset.name, error)
            if isinstance(answer, Failure):
                result.failures.append(answer)
                continue
            caption, value, dropped = answer
            made = self._provenance(caption, preset, captions)
            result.values[caption_key(preset.name)] = value
            result.made[preset.name] = {**made, "dropped": dropped} if dropped else made
        return result

    def save(self, track: Track, info: Mapping[str, Any], derived: Derived) -> None:
        """Merge what was derived from ``info``, unless captions have changed since. Raises SidecarError."""
        if not derived.values:
            return

        def keys(now: Mapping[str, Any]) -> Mapping[str, Any]:
            if self._captions(now) != self._captions(info):
                return {}
            return {**derived.values, PROVENANCE_KEY: derived.made}

        update_sidecar(track.sidecar, keys, track.within)

    def _captions(self, info: Mapping[str, Any]) -> dict[str, str]:
        """The prose by preset, or by the times of segments: no JSON, and of the tiny model only to itself."""
        is_tiny = self._captioner.model.is_tiny
        if self._wanted.summary:
            return segment_descriptions(info, of_tiny_model=is_tiny)
        return {
            preset: text
            for preset, text in descriptions(info).items()
            if not text.startswith("{") and (is_tiny or not is_of_tiny_model(provenance_of(info, preset)))
        }

    def _prose(self, captions: Mapping[str, str]) -> str:
        texts = {name: normalize_text(text) for name, text in captions.items()}
        if not self._wanted.summary:
            return "\n".join(texts.values())
        if sum(map(len, texts.values())) > _MOST_OF_SEGMENTS:
            texts = {time: _FIRST_SENTENCE.split(text, maxsplit=1)[0] for time, text in texts.items()}
        step = -(-sum(map(len, texts.values())) // _MOST_OF_SEGMENTS)
        return "\n".join(f"{time}: {text}" for time, text in list(texts.items())[:: max(1, step)])

    def _is_wanted(self, info: Mapping[str, Any], preset: Preset, captions: Mapping[str, str]) -> bool:
        made = provenance_of(info, preset.name)
        if caption_key(preset.name) not in info:
            return True
        if is_edited(made) or (self._captioner.model.is_tiny and not is_of_tiny_model(made)):
            return False
        is_current = made.get("template") == preset.template_hash and made.get("made_from") == digests_of(captions)
        return self._overwrite or not is_current

    def _accepted(self, preset: Preset, prose: str) -> tuple[Caption, Any, dict[str, Any]] | Failure:
        """Return the first answer that says nothing new, its value, and the fields dropped from it."""
        prompt = replace(preset.render({}), text=f"{preset.prompt}\n\n{prose}")
        if self._captioner.model.reasons:
            prompt = replace(prompt, max_tokens=prompt.max_tokens + REASONING_TOKENS)
        reason, tries = "", self._captioner.policy.retries + 1
        for attempt in range(tries):
            answer = self._answer(prompt, attempt)
            if isinstance(answer, Failure):
                return answer
            caption = judged(answer)
            if isinstance(caption, str):
                reason = caption
            elif preset.name == FIELDS:
                kept, dropped = kept_fields(json.loads(caption.text), prose)
                if kept:
                    return caption, kept, dropped
                reason = "none of the fields is in the captions"
            elif not (reason := self._why_not(preset.name, caption.text, prose)):
                return caption, caption.text, {}
        return Failure(
            preset=preset.name,
            kind=FailureKind.REFUSED_ANSWER,
            reason=f"{reason} ({tries} tries)" if tries > 1 else reason,
            hint="raise --retries, or try another model",
        )

    def _answer(self, prompt: Prompt, attempt: int) -> Answer | Failure:
        sampling = self._captioner.policy.sampling.for_retry(attempt)
        try:
            (result,) = self._captioner.engine.describe(NO_AUDIO, [prompt], sampling)
        except EngineError as error:
            return Failure.for_preset(prompt.preset, error)
        return result

    def _why_not(self, name: str, text: str, prose: str) -> str:
        """Return why a short version or a summary is refused; empty where it is not."""
        what = "summary" if name == SUMMARY else "short version"
        most = self._wanted.short
        if most is not None and (tokens := estimate(text)) > most:
            return f"the short version has {tokens} T5 tokens (estimated), more than {most}"
        new = unsupported(text, prose)
        return f"the {what} claims what the captions do not: {', '.join(new)}" if new else ""

    def _provenance(self, caption: Caption, preset: Preset, captions: Mapping[str, str]) -> dict[str, Any]:
        captioner = self._captioner
        made = provenance(caption, NO_AUDIO, captioner.engine, captioner.model, Excerpt(), self._run)
        made["prompt"] = preset.prompt  # the captions in it are in the sidecar
        return {**made, "made_from": digests_of(captions)}
