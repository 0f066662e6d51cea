"""Clean answers for a T5 text encoder, and decide whether an answer is acceptable as a caption."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

# T5's sentencepiece vocabulary lacks { } ~ ^ < \ ` and newline; they would become <unk>.
_REPLACED = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "‚": "'",
        "‛": "'",
        "′": "'",
        "´": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "‟": '"',
        "″": '"',
        "«": '"',
        "»": '"',
        "‹": "'",
        "›": "'",
        "♯": "#",
        "♭": "b",
        "♮": "",
        "×": "x",
        "⁄": "/",
        "∕": "/",
        "−": "-",
        "→": "->",
        "≈": "about ",
        "≥": "at least ",
        "≤": "at most ",
        "{": "(",
        "}": ")",
        "^": "",
        "\\": "/",
    }
)
# Tokens of chat templates that models of this family leak into answers.
TEMPLATE_TOKEN = re.compile(r"<\|[^|<>]*\|>|<sound>|</?s>|<unk>|<pad>|<__media__>|\[/?INST\]|<</?SYS>>")
_END_OF_ANSWER = re.compile(r"<\|(?:im_end|endoftext|eot_id)\|>|</s>")
_ROLE_LINE = re.compile(r"(?:^|\n)\s*(?:assistant|user|system)\s*(?::|\n)", re.IGNORECASE)
_CANNOT_HEAR = re.compile(
    r"^\W*(?:i'?m sorry|i am sorry|sorry|i(?: am|'m)? unable|i can(?:not|'t)|as an ai)\b.{0,80}\b(?:listen|hear|audio)",
    re.IGNORECASE,
)

_LINE_MARKUP = re.compile(r"^\s*(?:#{1,6}\s+|[-*+•·◦▪●○‣⁃]\s+|>\s+)")
_LIST_NUMBER = re.compile(r"\s*(\d{1,2})[.)]\s+", re.ASCII)
_HTML_TAG = re.compile(r"</?(?:i|b|u|em|strong|br|p|ul|ol|li|h[1-6]|span|div)\s*/?>", re.IGNORECASE)
_RULE_LINE = re.compile(r"^\s*(?:[-*_=]\s*){3,}$|^\s*\|?(?:\s*:?-{3,}:?\s*\|)+\s*:?-*:?\s*$|^\s*```\w*\s*$")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\((?:https?:|mailto:|/|#)[^()\s]*\)")
_UNDERSCORE_EMPHASIS = re.compile(r"(?<!\w)(_{1,3})(?=\S)([^_\n]+?)(?<=\S)\1(?!\w)")
_KEPT_SYMBOLS = frozenset("+=|>$£€¥¢¦§©®±÷")


def normalize_text(text: str) -> str:
    """Return ``text`` as one line without characters that T5 does not know; letters keep their accents.

    Idempotent: ``normalize_text(normalize_text(x)) == normalize_text(x)``.

    >>> normalize_text("**Tempo**: ~120 BPM — F♯ minor\\n- “warm” synths")
    'Tempo: about 120 BPM - F# minor "warm" synths'
    """
    while (cleaned := _normalize_once(text)) != text:  # removing one layer of markup can uncover another
        text = cleaned
    return text


def _normalize_once(text: str) -> str:
    """Apply each rule once."""
    text = TEMPLATE_TOKEN.sub(" ", text)
    text = _HTML_TAG.sub(" ", html.unescape(text))
    text = re.sub(r"(?<=\d)(?=[¼½¾⅐-⅞])", " ", text)  # 2½ is not 21/2
    text = re.sub(r"(?<=[A-Ga-g#b♭♯])[Δ△∆]", "maj", text)
    text = text.translate(_REPLACED)  # before NFKC, which turns ″ into two primes
    text = unicodedata.normalize("NFKC", text).translate(_REPLACED)
    text = re.sub(r"(?<=\d)\s*°", " degrees", text).replace("°", "dim")  # 20°; a chord's B°, vii°
    text = re.sub(r"\r\n?|[\u2028\u2029\x0b\x0c\x85]", "\n", text)
    text = " ".join(_strip_lines(text.split("\n")))
    text = _LINK.sub(r"\1", text)
    text = _UNDERSCORE_EMPHASIS.sub(r"\2", text.replace("*", ""))
    text = re.sub(r"(?<=\w)`(?=\w)", "'", text).replace("`", "")
    text = re.sub(r"~(?=\s?\d)", "about ", text).replace("~", " ")
    text = re.sub(r"<\s*(?=\d)", "less than ", text).replace("<", " ")
    text = re.sub(r"(?<=\w)\s*[—―]\s*(?=\w)", " - ", text)
    text = "".join(_replacement(character) for character in text)
    text = re.sub(r"\s+([,.;!?])(?=\s|$)", r"\1", " ".join(text.split()))
    return text.strip()


def _strip_lines(lines: list[str]) -> Iterator[str]:
    """Yield the lines without Markdown. A number is removed only where it continues a list, as `2.` after `1.`."""
    last = 0
    for line in lines:
        if _RULE_LINE.match(line):
            continue
        line = _LINE_MARKUP.sub("", line)
        if (item := _LIST_NUMBER.match(line)) and int(item[1]) == last + 1:
            last += 1
            line = line[item.end() :]
        yield line


def _replacement(character: str) -> str:
    """Return what replaces a character: one kind of dash and of space, nothing for invisible ones and symbols."""
    if character.isascii():
        return character if character.isprintable() else " "
    category = unicodedata.category(character)
    if category == "Pd":
        return "-"
    if category[0] == "Z":
        return " "
    if category[0] == "C" or (category[0] == "S" and character not in _KEPT_SYMBOLS):
        return "" if category in ("Cf", "Sk") else " "
    return character


def without_template_tokens(raw: str) -> str:
    r"""Return an answer up to its end, without tokens that would act as such in a later prompt.

    >>> without_template_tokens("It is slow.<|im_end|>\n<|im_start|>user")
    'It is slow.'
    """
    return TEMPLATE_TOKEN.sub(" ", _END_OF_ANSWER.split(raw, maxsplit=1)[0]).strip()


_TRANSCRIPTION = re.compile(
    r"""^\s*The\ (?:spoken\ content|transcription|content)\ of\ the\ (?:input\ )?audio\ is\s*(?P<quote>["'])
    (?P<text>.*?)(?:(?P=quote)\s*\.?\s*)?$""",
    re.VERBOSE | re.DOTALL,
)


def without_transcription_frame(raw: str) -> str:
    """Return what is quoted where all of an answer is the sentence that models frame a transcription with.

    An answer that the token limit cut lacks the closing quote. Any other answer is returned as it is.

    >>> without_transcription_frame('The spoken content of the audio is "summer follows spring".')
    'summer follows spring'
    """
    framed = _TRANSCRIPTION.match(raw)
    return framed["text"] if framed else raw


# -- accepting an answer -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of ``judge``: ``text`` is the cleaned caption, empty where ``refusal`` holds the reason for none."""

    text: str
    refusal: str = ""


def judge(raw: str, hit_limit: bool, min_words: int = 3, lines: bool = False) -> Verdict:
    """Clean a raw answer and decide whether it may be saved.

    Refused are answers that are empty or shorter than ``min_words`` words, loop, contain chat template tokens or
    invalid UTF-8, say that they cannot hear audio, or were cut by the token limit (``hit_limit``) before the end of the
    first sentence. An answer cut later is trimmed to its last whole sentence, or with ``lines`` (lyrics) to its last
    whole line, where it has several. A transcription loses the sentence that frames it.
    """
    raw = without_transcription_frame(_END_OF_ANSWER.split(raw.strip(), maxsplit=1)[0])
    if TEMPLATE_TOKEN.search(raw) or _ROLE_LINE.search(raw):
        return Verdict("", "the answer contains tokens of the chat template")
    is_cut_at_line = hit_limit and lines and "\n" in raw
    if is_cut_at_line:
        raw = raw.rpartition("\n")[0]
    whole = raw.rstrip("\ufffd") if hit_limit else raw  # the limit may have cut a character in half
    text = normalize_text(whole)
    if not any(character.isalnum() for character in text):
        return Verdict("", "the answer is empty")
    if refusal := _flaw(whole, text, lines):
        return Verdict("", refusal)
    kept = whole_sentences(text) if hit_limit and not is_cut_at_line else text
    if not kept:
        return Verdict("", "the token limit cut the answer before its first sentence ended")
    if _word_count(kept) < min_words:
        return Verdict("", f"the answer is too short (under {min_words} words)")
    return Verdict(kept)


def _flaw(raw: str, text: str, lines: bool) -> str:
    """Return why an answer is refused for its content; empty where it is not."""
    if "\ufffd" in raw:
        return "the answer contains invalid UTF-8"
    if _CANNOT_HEAR.search(text):
        return "the answer says that it cannot hear audio"
    if loops(text, _LOOP_WORDS_IN_LYRICS if lines else _LOOP_WORDS):
        return "the answer repeats itself"
    return ""


def _word_count(text: str) -> int:
    """Return the number of words; in scripts written without spaces, of characters."""
    return len(text.split()) + sum("\u3040" <= character <= "\u9fff" for character in text)


_ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "ca.", "approx.", "feat.", "ft.", "no.", "st.", "mr.", "dr.")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)|[。！？]")


def whole_sentences(text: str) -> str:
    """Return the text up to the end of its last whole sentence, or an empty string.

    >>> whole_sentences("Warm pads, e.g. strings. Then the dru")
    'Warm pads, e.g. strings.'
    """
    for match in reversed(list(_SENTENCE_END.finditer(text))):
        head = text[: match.end()]
        last = head.split()[-1].lower()
        if last not in _ABBREVIATIONS and not _is_list_number(last, head[: -len(last)]):
            return head
    return ""


def _is_list_number(word: str, before: str) -> bool:
    """Return whether `2.` numbers a list item: it is 1., `1.` came before it, or it comes right after a sentence."""
    if not re.fullmatch(r"\d{1,2}\.", word):
        return False
    number = int(word[:-1])
    if re.search(r"[.!?:]\s*$", before):  # right after a sentence
        return True
    return number == 1 or f" {number - 1}. " in f" {before}"


# How many words a repeated block must cover to count as a loop: more than a chord progression named six times (24
# words), and in lyrics more than a repeated chorus.
_LOOP_WORDS = 32
_LOOP_WORDS_IN_LYRICS = 120


def loops(text: str, minimum: int = _LOOP_WORDS) -> bool:
    """Return whether the text repeats itself.

    It does where a block of up to 40 words occurs at least four times in a row and covers at least ``minimum`` words,
    or (with the default ``minimum``, for text other than lyrics) where few sequences of three words are new.
    """
    words = re.findall(r"\w+", text.lower())
    return _repeats_block(words, minimum) or (minimum == _LOOP_WORDS and _has_little_new(words))


def _repeats_block(words: list[str], minimum: int) -> bool:
    """Return whether a block of up to 40 words repeats over at least ``minimum`` words."""
    for size in range(1, min(40, len(words) // 4) + 1):
        run = 0  # how many words in a row equal the word one block before
        for index in range(size, len(words)):
            run = run + 1 if words[index] == words[index - size] else 0
            if run >= max(3 * size, minimum - size):
                return True
    return False


def _has_little_new(words: list[str]) -> bool:
    """Return whether under 40 % of at least 60 sequences of three words are distinct."""
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(triples) >= 60 and len(set(triples)) / len(triples) < 0.4
