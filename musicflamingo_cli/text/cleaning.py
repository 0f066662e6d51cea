"""Clean answers for a T5 text encoder, and decide whether an answer is acceptable as a caption."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from html.entities import html5

from musicflamingo_cli.text.excuses import says_it_cannot_hear
from musicflamingo_cli.text.loops import LOOP_WORDS, LOOP_WORDS_IN_LYRICS, UNSPACED, loops, words_of

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
# A turn of a conversation that the model went on with. "System" may be a line of lyrics, so there only the role that
# answers counts, and only as a template writes it.
_ROLE_LINE = re.compile(r"(?:^|\n)\s*(?:assistant|user|system)\s*(?::|\n)", re.IGNORECASE)
_ROLE_LINE_IN_LYRICS = re.compile(r"(?:^|\n)\s*assistant\s*(?::|\n)")

_QUANTITY = r"\d[\d.,]*\s*(?:dB|LUFS|LU|cents?|semitones?|st|degrees|°|%)(?!\w)"  # "- 3 dB" is no list item
_LINE_MARKUP = re.compile(rf"^\s*(?:#{{1,6}}\s+|[*•·◦▪●○‣⁃]\s+|[-+]\s+(?!{_QUANTITY})|>\s+(?!\d))", re.IGNORECASE)
_LIST_NUMBER = re.compile(r"\s*(\d{1,2})[.)]\s+", re.ASCII)
_HTML_TAG = re.compile(r"</?(?:i|b|u|em|strong|br|p|ul|ol|li|h[1-6]|span|div)\s*/?>", re.IGNORECASE)
_RULE_LINE = re.compile(r"^\s*(?:[-*_=]\s*){3,}$|^\s*\|?(?:\s*:?-{3,}:?\s*\|)+\s*:?-*:?\s*$|^\s*```\w*\s*$")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\((?:https?:|mailto:|/|#)[^()\s]*\)")
_UNDERSCORE_EMPHASIS = re.compile(r"(?<!\w)(_{1,3})(?=\S)([^_\n]+?)(?<=\S)\1(?!\w)")
_KEPT_SYMBOLS = frozenset("+=|>$£€¥¢¦§©®±÷")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|\w{2,32});", re.ASCII)
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_POWER = " to the power of "
# Persian and the scripts of India distinguish words by these; elsewhere they are invisible and mean nothing.
_JOINED = "[\u0600-\u06ff\u0750-\u077f\u0900-\u0dff]"
_JOINER = re.compile(rf"(?<!{_JOINED})[\u200c\u200d]|[\u200c\u200d](?!{_JOINED})")
_JOINERS = "\u200c\u200d"


def normalize_text(text: str) -> str:
    """Return ``text`` as one line without characters that T5 does not know; letters keep their accents.

    Idempotent: ``normalize_text(normalize_text(x)) == normalize_text(x)``. Letters and digits stay, in their order, in
    their compatible form (NFKC: ``ﬁ`` is ``fi``). Only these go: chat template tokens, HTML tags and entities, the
    addresses of links, the language of a code block, numbers of list items, and Δ after a chord (``maj``).

    >>> normalize_text("**Tempo**: ~120 BPM — F♯ minor\\n- “warm” synths")
    'Tempo: about 120 BPM - F# minor "warm" synths'
    """
    while (cleaned := _normalize_once(text)) != text:  # removing one layer of markup can uncover another
        text = cleaned
    return text


def _normalize_once(text: str) -> str:
    """Apply each rule once."""
    text = TEMPLATE_TOKEN.sub(" ", text)
    text = _HTML_TAG.sub(" ", _ENTITY.sub(_character, text))
    text = "".join(each for each in text if not _is_invisible(each))  # it would hide a number from the rules below
    text = re.sub(r"(?<=\d)(?=[¼½¾⅐-⅞₀-₉①-⓿])", " ", text)  # 2½ is not 21/2
    text = re.sub(r"(?<=[²³¹⁰-⁹¼½¾⅐-⅞₀-₉①-⓿])(?=[0-9])", " ", text)
    text = re.sub(rf"(?<=\d)(⁻?)([{_SUPERSCRIPTS}])", rf"{_POWER}\1\2", text)  # 10² is not 102
    text = re.sub(r"(?<=\d)\s*\^\s*(?=[-+]?\d)", _POWER, text)
    text = re.sub(r"(?<=\d)\^+", " ", text)
    text = re.sub(r"\b([nN])[°º]\s*(?=\d)", r"\1o. ", text)
    text = re.sub(r"(?<=[A-Ga-g#b♭♯])[Δ△∆]", "maj", text)
    text = text.translate(_REPLACED)  # before NFKC, which turns ″ into two primes
    text = unicodedata.normalize("NFKC", text).translate(_REPLACED)
    text = re.sub(r"(?<=\d)\s*°", " degrees", text).replace("°", "dim")  # 20°; a chord's B°, vii°
    text = re.sub(r"\r\n?|[\u2028\u2029\x0b\x0c\x85]", "\n", text)
    text = " ".join(_strip_lines(text.split("\n")))
    text = _LINK.sub(r"\1", text)
    text = _UNDERSCORE_EMPHASIS.sub(r"\2", text.replace("*", ""))
    text = re.sub(r"(?<=\w)`(?=\w)", "'", text).replace("`", "")
    text = re.sub(r"(?<=\d)\s?~\s?(?=\d)", "-", text)  # a range
    text = re.sub(r"~(?=\s?\d)", "about ", text).replace("~", " ")
    text = re.sub(r"<\s*(?=\d)", "less than ", text).replace("<", " ")
    text = re.sub(r"(?<=\w)\s*[—―]\s*(?=\w)", " - ", text)
    text = "".join(_replacement(character) for character in _JOINER.sub("", text))
    text = re.sub(r"\s+([,.;!?])(?=\s|$)", r"\1", " ".join(text.split()))
    return text.strip()


def _is_invisible(character: str) -> bool:
    """Whether it is a mark of format, such as a zero-width space; the joiners that words need are none."""
    return character not in _JOINERS and unicodedata.category(character) == "Cf"


def _character(entity: re.Match[str]) -> str:
    """Return the character that an HTML entity names; `&regg;` names none, though it begins as `&reg` does."""
    name = entity[0]
    return html.unescape(name) if name[1] == "#" or name[1:] in html5 else name


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
    if character in _JOINERS:
        return character  # those that mean nothing are gone
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

_TEMPLATE = "the answer contains tokens of the chat template"
_CUT = "the token limit cut the answer before its first sentence ended"
_CANNOT_HEAR = "the answer says that it cannot hear audio"
_LOOPS = "the answer repeats itself"
_TOO_SHORT = "the answer is too short"
_HINTS = {
    _CUT: "raise the preset's `max_tokens`, or try another --seed",
    _CANNOT_HEAR: "check that the model processes audio: musicflamingo doctor",
    _LOOPS: "raise --repeat-penalty, for example to 1.1, or try another --seed",
    _TOO_SHORT: "if short answers are right, set `min_words: 1` in the preset",
}


def hint_for(refusal: str) -> str:
    """Return what to do about a refusal of ``judge`` that every retry ended with."""
    hints = (hint for reason, hint in _HINTS.items() if refusal.startswith(reason))
    return next(hints, "try another --seed, or more --retries")


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
    if TEMPLATE_TOKEN.search(raw) or (_ROLE_LINE_IN_LYRICS if lines else _ROLE_LINE).search(raw):
        return Verdict("", _TEMPLATE)
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
        return Verdict("", _CUT)
    if len(words_of(kept)) < min_words:
        return Verdict("", f"{_TOO_SHORT} (under {min_words} words)")
    return Verdict(kept)


def _flaw(raw: str, text: str, lines: bool) -> str:
    """Return why an answer is refused for its content; empty where it is not."""
    if "\ufffd" in raw:
        return "the answer contains invalid UTF-8"
    if says_it_cannot_hear(text, lines):
        return _CANNOT_HEAR
    if loops(text, LOOP_WORDS_IN_LYRICS if lines else LOOP_WORDS):
        return _LOOPS
    return ""


_ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "ca.", "approx.", "feat.", "ft.", "no.", "st.", "mr.", "dr.")
_SENTENCE_END = re.compile(rf"[.!?\u061f\u06d4][\"')\]]*(?=[\s{UNSPACED}]|$)|[。！？\u0964\u0965\u17d4\u104b]")
_THAI = re.compile(r"[\u0e00-\u0eff]")  # Thai and Lao end sentences with a space


def whole_sentences(text: str) -> str:
    """Return the text up to the end of its last whole sentence, or an empty string.

    >>> whole_sentences("Warm pads, e.g. strings. Then the dru")
    'Warm pads, e.g. strings.'
    """
    for match in reversed(list(_SENTENCE_END.finditer(text))):
        if _ends_a_sentence(head := text[: match.end()]):
            return head
    return text.rpartition(" ")[0] if _THAI.search(text) else ""


def sentence_limits(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each sentence of a text begins and ends, with the space after it; together they are the text.

    >>> text = "Warm pads, e.g. strings. At 99.5 BPM."
    >>> [text[start:end] for start, end in sentence_limits(text)]
    ['Warm pads, e.g. strings. ', 'At 99.5 BPM.']
    """
    start = 0
    for match in _SENTENCE_END.finditer(text):
        end = match.end() + len(text[match.end() :]) - len(text[match.end() :].lstrip())
        if _ends_a_sentence(text[: match.end()]) and not text[end : end + 1].islower():
            yield start, end
            start = end
    if start < len(text):
        yield start, len(text)


def _ends_a_sentence(head: str) -> bool:
    """Return whether the full stop at the end of a text ends a sentence: it is not that of an abbreviation."""
    last = head.split()[-1].lower()
    return last not in _ABBREVIATIONS and not _is_list_number(last, head[: -len(last)])


def _is_list_number(word: str, before: str) -> bool:
    """Return whether `2.` numbers a list item: it is 1., `1.` came before it, or it comes right after a sentence."""
    if not re.fullmatch(r"\d{1,2}\.", word):
        return False
    number = int(word[:-1])
    if re.search(r"[.!?:]\s*$", before):  # right after a sentence
        return True
    return number == 1 or f" {number - 1}. " in f" {before}"
