"""Answers that say that the model cannot hear audio, or was given none: they are about the model, not the music.

A sentence counts by what it claims (who cannot do what with which thing), not by how it begins. What a caption quotes
does not count, and of lyrics only a sentence about audio files does: singers, too, say that they cannot hear.
The patterns were tuned on half of tests/text/answers.py; the tests measure the other half.
"""

from __future__ import annotations

import re

_SENTENCES = 4  # where an excuse comes, it comes at the beginning
_QUOTED = re.compile(r'"[^"]*"')
_SENTENCE_BREAK = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])")

_FILE = r"(?:audio\w*|files?|clips?|recordings?|attachments?)"
_MEDIUM = rf"(?:{_FILE}|music|sounds?|songs?|tracks?|pieces?|media)"
_HEAR = r"(?:listen|hear|access|process|play|analy[sz]|perceiv|interpret|evaluat|open|transcri)\w*"
_GIVEN = r"(?:attach(?:ed)?|upload(?:ed)?|provided|received?|included|shared?|sent|given|supplied)"
_UNABLE = r"""(?:\bcan(?:not|'t|\ not)\b|\bcould(?:\ not|n't)\b|\bunable\b|\bincapable\b|\bimpossible\b|\black\b
    |\bno\ way\b|(?:\bnot|n't)\ (?:\w+\ )?(?:able|capable|possible|something)\b|\b(?:beyond|outside)\ my\b
    |(?:\bnot|n't)\ (?:\w+\ )?(?:have|possess)\b|\bhave\ no\b|\blimited\ to\ text\b|\bonly\ (?:\w+\ )?text\b)"""
_SPEAKER = r"\b(?:I|me|my|we|this\ model)\b"
_MODEL = r"\ban?\ (?:[\w-]+\ ){0,3}(?:AI|artificial\ intelligence|language\ model|chatbot|assistant|model)\b"
_UP_TO_OBJECT = r"\W+(?:(?!(?:in|on|over|from|at)\b)[\w']+\W+){0,5}?"  # not "hear drums in this track"


def _patterns(medium: str) -> tuple[re.Pattern[str], ...]:
    """Return what one sentence must contain; ``medium``: the things that cannot be heard or are missing."""
    claims = (
        # The model says that it is one, and that it cannot.
        rf"(?:\bas|\bbeing|\bI'm|\bI\ am)\ (?:just\ |only\ |merely\ )?{_MODEL}.*{_UNABLE}",
        rf"{_UNABLE}.*\b(?:as|being)\ {_MODEL}",
        # It cannot hear, access, process the audio.
        rf"(?=.*{_SPEAKER}).*{_UNABLE}(?:\W+\w+){{0,6}}?\W+{_HEAR}{_UP_TO_OBJECT}{medium}\b",
        rf"(?=.*{_SPEAKER})(?=.*(?:{_HEAR}|\banalysis|\binput)).*\b(?:{_FILE}|music)\b(?:\W+\w+){{0,6}}?\W*{_UNABLE}",
        rf"{_UNABLE}(?:\W+\w+){{0,3}}?\W+(?:ability|capability|capacity)\ to\ (?:{_HEAR})",
        rf"{_UNABLE}\W+access\ to\b{_UP_TO_OBJECT}{medium}\b",
        rf"\bwithout\ (?:access\ to|hearing|listening|being\ able\ to\ {_HEAR}|having|its)"
        rf"{_UP_TO_OBJECT}{medium}\b.*{_UNABLE}",
        r"\baudio\ (?:\w+\ )?(?:is|are)(?:\ not|n't)\ (?:\w+\ )?supported\b|\b(?:not|n't)\ (?:\w+\ )?support\ audio",
        # There is none.
        rf"\bno\ (?:\w+\ ){{0,2}}{medium}(?:\ \w+){{0,5}}?\ (?:{_GIVEN}|available|found|detected)\b",
        rf"\bno\ (?:\w+\ )?{medium}\ in\ (?:your|the|this)\ (?:message|request|prompt|input|conversation)",
        rf"(?:\bnot|n't)\ (?:\w+\ ){{0,3}}?(?:{_GIVEN}|see)\ (?:\w+\ ){{0,4}}?{medium}\b",
        rf"(?:\bnot|n't)\ (?:seem|appear)\ to\ be\ (?:\w+\ ){{0,3}}?{medium}\b",
        rf"\b{_FILE}\ (?:\w+\ ){{0,2}}?\w*(?:\bnot|n't)\ (?:\w+\ ){{0,2}}?"
        rf"(?:{_GIVEN}|come\ through|load(?:ed)?|available)\b",
        rf"\b{_FILE}\ (?:\w+\ ){{0,4}}?missing(?:\W*$|\ from\ (?:your|the|this)\ "
        r"(?:message|request|prompt|conversation))",
        # It asks for it.
        rf"\b(?:please|kindly|you)\b.{{0,30}}\b(?:upload|attach|send|share|provide|supply|paste)\w*\b.{{0,40}}"
        rf"\b(?:{medium}|links?|transcripts?|details)\b",
        rf"\bI(?:'d|'ll|\ would|\ will)?\ need\b{_UP_TO_OBJECT}{medium}\b",
    )
    return tuple(re.compile(claim, re.IGNORECASE | re.VERBOSE) for claim in claims)


_IN_CAPTIONS = _patterns(_MEDIUM)
_IN_LYRICS = _patterns(_FILE)
# "I cannot listen to" in other languages that the models answer in.
_ELSEWHERE = re.compile(
    r"""\bno\ (?:puedo|soy\ capaz|tengo).{0,30}(?:escuchar|oír|procesar|analizar|acceder)
    |\bje\ ne\ (?:peux|suis|dispose|parviens).{0,30}(?:écouter|entendre|traiter|analyser|accéder)
    |\bich\b.{0,40}\b(?:keine?n?|nicht)\b.{0,40}(?:hören|abspielen|analysieren|verarbeiten|zugreifen)
    |\bnão\ (?:posso|consigo|sou\ capaz).{0,30}(?:ouvir|escutar|processar|analisar|acessar)
    |\bnon\ (?:posso|sono\ in\ grado|riesco).{0,30}(?:ascoltare|sentire|elaborare|analizzare|accedere)
    |我.{0,6}(?:无法|無法|不能|没办法).{0,6}(?:收听|听(?![清出])|聽(?![清出])|访问|处理|播放|接收|分析)
    |(?:音声|音楽|音源|オーディオ|ファイル).{0,12}(?:聞|聴|再生|処理|分析|アクセス).{0,8}(?:ません|できない)
    |(?:오디오|음악|음성|파일).{0,12}(?:들을|듣|재생|처리|분석).{0,6}(?:없|못)
    |\bне\ (?:могу|умею|способ\w+).{0,30}(?:слуш|слыш|обраб|анализ)""",
    re.IGNORECASE | re.VERBOSE,
)
_FILE_ELSEWHERE = re.compile(
    r"audio|archivo|fichier|datei|arquivo|音频|音頻|文件|音声|ファイル|오디오|파일|аудио|файл", re.I
)


def says_it_cannot_hear(text: str, lyrics: bool = False) -> bool:
    """Return whether a normalised answer says that the model cannot hear, or that there is no audio.

    >>> says_it_cannot_hear("As a text-based model I have no way of playing your recording.")
    True
    >>> says_it_cannot_hear("I can't hear you calling my name", lyrics=True)
    False
    """
    for sentence in _SENTENCE_BREAK.split(_QUOTED.sub("", text), maxsplit=_SENTENCES)[:_SENTENCES]:
        head = sentence[:400]
        if any(claim.search(head) for claim in (_IN_LYRICS if lyrics else _IN_CAPTIONS)):
            return True
        if _ELSEWHERE.search(head) and (not lyrics or _FILE_ELSEWHERE.search(head)):
            return True
    return False
