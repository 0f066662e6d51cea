"""Words of any script, and answers that repeat themselves."""

from __future__ import annotations

import re
import unicodedata

# Chinese, Japanese, Thai, Lao, Burmese and Khmer put no spaces between words: there, each letter counts as a word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_IS_UNSPACED = re.compile(f"[{UNSPACED}]")
# How many words a repeated block must cover to count as a loop: more than a chord progression named six times (24
# words), and in lyrics more than a repeated chorus.
LOOP_WORDS = 32
LOOP_WORDS_IN_LYRICS = 120
_COUNTER = re.compile(
    r"(?:\d\w*|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|first|second|third|fourth|fifth|sixth|"
    r"seventh|eighth|ninth|tenth|eleventh|twelfth)\Z"
)
_NUMBER = "#"


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation; in scripts without spaces, its letters.

    >>> words_of("Warm R&B, 静か")
    ['warm', 'r', 'b', '静', 'か']
    """
    words: list[str] = []
    is_open = False  # whether the next letter continues a word
    for character in text.lower():
        category = unicodedata.category(character)[0]
        if category == "M" and words:
            words[-1] += character  # a vowel sign or an accent, which ``\w`` does not match
        elif category not in "LN" and character != "_":
            is_open = False
        elif is_open and not _IS_UNSPACED.match(character):
            words[-1] += character
        else:
            words.append(character)
            is_open = not _IS_UNSPACED.match(character)
    return words


def loops(text: str, minimum: int = LOOP_WORDS) -> bool:
    """Return whether the text repeats itself.

    It does where a block of up to 40 words occurs at least four times in a row and covers at least ``minimum`` words,
    or (with the default ``minimum``, for text other than lyrics) where few sequences of three words are new. Blocks
    that differ in their numbers only ("Section 1: guitar. Section 2: guitar.") are equal, but numbers are no words
    then: a list of sections with times is not a loop.
    """
    words = words_of(text)
    counted = [_NUMBER if _COUNTER.match(word) else word for word in words]
    return (
        _repeats_block(words, minimum)
        or (minimum == LOOP_WORDS and _has_little_new(words))
        or (_NUMBER in counted and _repeats_block(counted, minimum))
    )


def _repeats_block(words: list[str], minimum: int) -> bool:
    """Return whether a block of up to 40 words repeats over at least ``minimum`` words that are no numbers."""
    for size in range(1, min(40, len(words) // 4) + 1):
        start = size
        for index in range(size, len(words) + 1):
            if index < len(words) and words[index] == words[index - size]:
                continue
            run = words[start - size : index]  # each word of it but the first block equals the one a block before
            if len(run) >= 4 * size and sum(word != _NUMBER for word in run) >= minimum:
                return True
            start = index + 1
    return False


def _has_little_new(words: list[str]) -> bool:
    """Return whether under 40 % of at least 60 sequences of three words are distinct."""
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(triples) >= 60 and len(set(triples)) / len(triples) < 0.4
