"""How many T5 tokens a caption has, and which captions a trainer would cut without a word.

With a tokenizer of the user's the count is exact; without one it is an estimate, and is called so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicflamingo_cli.errors import ConfigError

# Who reads how many tokens: Stable Audio Open's model config (`max_length`: 128), and T5 as it was trained.
LIMITS: Mapping[str, int] = {"Stable Audio Open": 128, "T5": 512}

_MOST_LISTED, _MOST_SHOWN = 1000, 5
_PIECES = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]")
_LETTERS = 8  # a longer word is reckoned as several of T5's 32,000 pieces, which serve four languages


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts T5 tokens of a text, the end-of-sequence token included. ``is_exact``: by a tokenizer."""

    count: Callable[[str], int]
    is_exact: bool
    name: str


@dataclass(slots=True)
class Budget:
    """How many captions go beyond which limit."""

    counter: TokenCounter
    captions: int = 0
    longest: int = 0
    beyond: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LIMITS, 0))
    too_long: list[tuple[str, int]] = field(default_factory=list)  # where they stand, and their tokens

    def add(self, text: str, where: str = "") -> int:
        """Count a caption; its tokens. ``where`` names it among those that are too long."""
        tokens = self.counter.count(text)
        self.captions += 1
        self.longest = max(self.longest, tokens)
        for name, limit in LIMITS.items():
            self.beyond[name] += tokens > limit
        if tokens > min(LIMITS.values()) and len(self.too_long) < _MOST_LISTED:
            self.too_long.append((where, tokens))
        return tokens

    def lines(self) -> list[str]:
        """For a person: which captions a trainer would cut; nothing where it would cut none."""
        by = "" if self.counter.is_exact else ", by an estimate (--tokenizer counts them)"
        lines = [
            f"{number} of {self.captions} captions are longer than the {LIMITS[name]} tokens of {name}{by}: "
            "a trainer cuts their end without a word"
            for name, number in self.beyond.items()
            if number
        ]
        shown = [f"  {where}: {tokens} tokens" for where, tokens in self.too_long[:_MOST_SHOWN]]
        rest = ["  and more: --json names up to a thousand"] if len(self.too_long) > _MOST_SHOWN else []
        return lines + shown + rest

    def as_json(self) -> dict[str, Any]:
        """For --json: what was counted, by what."""
        return {
            "captions": self.captions,
            "longest": self.longest,
            "is_estimate": not self.counter.is_exact,
            "tokenizer": self.counter.name if self.counter.is_exact else None,
            "too_long": [{"track": where, "tokens": tokens} for where, tokens in self.too_long],
            "beyond": {f"{name} ({LIMITS[name]})": number for name, number in self.beyond.items()},
        }


def estimate(text: str) -> int:
    """About how many T5 tokens a text has: every word, digit and mark one, long words several, and the end.

    Meant to err on the high side: a warning too many costs less than a caption cut in silence.

    >>> estimate("A slow piano piece.")
    6
    """
    return 1 + sum(-(-len(piece) // _LETTERS) for piece in _PIECES.findall(text))


def token_counter(tokenizer: str | None) -> TokenCounter:
    """A counter with the named tokenizer, or the estimate.

    ``tokenizer`` is a `tokenizer.json`, a folder that holds one or a `spiece.model`, or a model's name on the hub.
    Raises ConfigError where it cannot be loaded.
    """
    if tokenizer is None:
        return TokenCounter(estimate, False, "estimate")
    path = Path(tokenizer).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file() and file.suffix == ".json":
        return TokenCounter(_from_file(file), True, str(file))
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is no tokenizer.json", "give that file, its folder, or a name: --tokenizer t5-base")
    return TokenCounter(_with_transformers(str(path) if path.is_dir() else tokenizer), True, tokenizer)


def _from_file(file: Path) -> Callable[[str], int]:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError("--tokenizer needs a package that is not installed", "pip install tokenizers") from error
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise ConfigError(f"{file} is no tokenizer: {error}", "give another --tokenizer, or leave it out") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)


def _with_transformers(name: str) -> Callable[[str], int]:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        hint = "pip install transformers sentencepiece, or give the path of its tokenizer.json"
        raise ConfigError(f"the tokenizer {name} needs a package that is not installed", hint) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # missing files, no network, no sentencepiece: each of another type
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"the tokenizer {name} cannot be loaded: {reason}", "give a tokenizer.json's path") from error
    return lambda text: len(tokenizer(text, truncation=False)["input_ids"])
