"""T5 token counts of captions, and which captions trainers silently truncate.

With a tokenizer the count is exact; without one it is an estimate, and is labelled as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.paths import expanded

# The most tokens that are read: by Stable Audio Open (`max_length` in its model config), and by T5 as trained.
LIMITS: Mapping[str, int] = {"Stable Audio Open": 128, "T5": 512}

_MOST_LISTED, _MOST_SHOWN = 1000, 5
_PIECES = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]")
_LETTERS = 8  # each further 8 letters of a word count as one more piece of T5's vocabulary


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts the T5 tokens of a text, including end of sequence. ``is_exact``: by a tokenizer, not an estimate."""

    count: Callable[[str], int]
    is_exact: bool
    name: str


@dataclass(slots=True)
class TokenStats:
    """Counts captions, and those longer than each limit.

    ``beyond``: name of a limit to number of captions. ``too_long``: where the first of these are, and their tokens.
    """

    counter: TokenCounter
    captions: int = 0
    longest: int = 0
    beyond: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LIMITS, 0))
    too_long: list[tuple[str, int]] = field(default_factory=list)

    def add(self, text: str, where: str = "") -> int:
        """Count a caption and return its tokens. ``where`` identifies it in the list of captions that are too long."""
        tokens = self.counter.count(text)
        self.captions += 1
        self.longest = max(self.longest, tokens)
        for name, limit in LIMITS.items():
            self.beyond[name] += tokens > limit
        if tokens > min(LIMITS.values()) and len(self.too_long) < _MOST_LISTED:
            self.too_long.append((where, tokens))
        return tokens

    def lines(self) -> list[str]:
        """Return lines for the terminal about captions that trainers truncate; none where all captions fit."""
        by = "" if self.counter.is_exact else " (estimated; count exactly with --tokenizer)"
        lines = [
            f"{number} of {self.captions} captions are longer than the {LIMITS[name]} tokens of {name}{by}: "
            "trainers silently truncate them"
            for name, number in self.beyond.items()
            if number
        ]
        shown = [f"  {where}: {tokens} tokens" for where, tokens in self.too_long[:_MOST_SHOWN]]
        rest = ["  and more: --json lists up to a thousand"] if len(self.too_long) > _MOST_SHOWN else []
        return lines + shown + rest

    def as_json(self) -> dict[str, Any]:
        """Return the counts for --json."""
        return {
            "captions": self.captions,
            "longest": self.longest,
            "is_estimate": not self.counter.is_exact,
            "tokenizer": self.counter.name if self.counter.is_exact else None,
            "too_long": [{"track": where, "tokens": tokens} for where, tokens in self.too_long],
            "beyond": {f"{name} ({LIMITS[name]})": number for name, number in self.beyond.items()},
        }


def estimate(text: str) -> int:
    """Estimate the T5 tokens of a text: one per word, digit and punctuation mark, several per long word, and the end.

    The estimate is meant to be high: a needless warning costs less than a caption truncated unnoticed.

    >>> estimate("A slow piano piece.")
    6
    """
    return 1 + sum(-(-len(piece) // _LETTERS) for piece in _PIECES.findall(text))


def token_counter(tokenizer: str | None) -> TokenCounter:
    """Return a counter that uses the tokenizer; None: an estimate.

    ``tokenizer`` is a `tokenizer.json`, a folder that holds one or a `spiece.model`, or a model's name on the hub.
    Raises ConfigError where it cannot be loaded.
    """
    if tokenizer is None:
        return TokenCounter(estimate, False, "estimate")
    path = expanded(tokenizer)
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file() and file.suffix == ".json":
        return TokenCounter(_from_file(file), True, str(file))
    if path.exists() and not path.is_dir():
        raise ConfigError(
            f"{path} is not a tokenizer.json", "use that file, its folder, or a model's name: --tokenizer t5-base"
        )
    return TokenCounter(_with_transformers(str(path) if path.is_dir() else tokenizer), True, tokenizer)


def _from_file(file: Path) -> Callable[[str], int]:
    """Return the count function of a `tokenizer.json`. Raises ConfigError."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(
            "--tokenizer needs the package tokenizers, which is not installed", "pip install tokenizers"
        ) from error
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise ConfigError(f"{file} is not a tokenizer: {error}", "use another --tokenizer, or none") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)


def _with_transformers(name: str) -> Callable[[str], int]:
    """Return the count function of a tokenizer that transformers loads, by folder or name. Raises ConfigError."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        hint = "pip install transformers sentencepiece, or use the path of its tokenizer.json"
        raise ConfigError(
            f"the tokenizer {name} needs the package transformers, which is not installed", hint
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # missing files, no network, no sentencepiece: many error types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"the tokenizer {name} cannot be loaded: {reason}", "use the path of a tokenizer.json"
        ) from error
    return lambda text: len(tokenizer(text, truncation=False)["input_ids"])
