"""Sentences with times, made of cues: what a moment begins and ends with (lesson 06)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import razdel

from viralbert.moments.subtitles import Cue
from viralbert_utils.base.errors import DataError

MAX_UNIT_S, MAX_UNIT_WORDS = 12.0, 30
# so much of a pause counts where the length of the speech decides how many moments are wanted
MAX_PAUSE_S = 120.0
MAX_CREDIT_WORDS = 14
# No speech: [музыка], ♪ ... ♪, and (смеётся) where nothing stands outside the brackets.
_NOTE = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])*+\]|♪[^♪]*+♪?")
_ALL_IN_BRACKETS = re.compile(r"(?:[^\w(]|\((?:[^()]|\([^()]*\))*+\))*+")
# Recognisers have learned these from subtitle files and write them in silence: nobody says them.
# Sounds stand in capitals, without brackets.
_SOUND = re.compile(
    r"\W*(?:[А-ЯЁ]+\s+){0,3}(?:МУЗЫК[АИ]|АПЛОДИСМЕНТЫ|СМЕХ|ПЕСН[ЯИ]|ПЛАЧ|КРИКИ?|ШУМ|ЗВОНОК|ЗВОН|СТУК|ЛАЙ|ВЫСТРЕЛЫ?|"
    r"ВЗРЫВЫ?|ГУДОК|СИГНАЛ|ТИШИНА)(?:\s+[А-ЯЁ]+){0,3}\W*"
)
_NAME = r"(?-i:[A-ZА-ЯЁ«\"])"  # as a name begins: in capitals, also where others do not count
_MADE = (
    r"(?:созда(?:ва)?|с?дела|подогна|подготови|добави|предостави|перев[её]|исправи|(?:от)?редактирова|"
    r"(?:от)?корректирова|выполни|озвучи|синхронизирова)л[аи]?\b"
)
_WERE_MADE = r"(?:созда|сдела|подготовле|добавле|предоставле|переведе|исправле|выполне|озвуче)н[ыа]"
_CREDIT = re.compile(
    rf"\W*(?:(?:суб)?титры(?:\s+и\s+\w+)?(?:\s+{_MADE}|\s+(?:были\s+)?{_WERE_MADE}\s+(?:студи|сообщ|команд|{_NAME})|"
    rf"\s+от\s+(?:студи|сообщ|команд|{_NAME})|\s+by\s|\s+сообществ|(?:\s+{_NAME}\S*)+\Z|\s*:|\s+[—–-]\s+{_NAME}|"
    rf"\s+на\s+русск\w+(?:\s+язык\w*)?(?:\s*:|\s+{_NAME}|\s+{_MADE}))|"
    rf"(?:редактор|корректор|переводчик|автор)\w*\s+субтитров(?:\s*[:—–-]|\s+{_NAME}|\s+и\s+\w+тор|\W*\Z)|"
    rf"(?:редактор|корректор)\s+\w\.|(?:перевод|озвучка|синхронизация)\s+(?:и\s+)?субтитр\w+|"
    rf"(?:переведено|озвучено)\s+студией|(?:перевод|озвучка|переводчик)\s*:\s*{_NAME}|"
    r"(?:subtitles|captions|subs|translated|transcribed|transcription)\s+by\s|untertitel\s+(?:von|der)\s|"
    r"sous-titr\w+\s+(?:réalis|par\s)|dimatorzok|(?:www\.)?amara\.org)",
    re.I,
)
_WORD = re.compile(r"\S+")
_LETTER = re.compile(r"\w")
_GOES_ON = re.compile(r"\W{0,8}?(?:\.\.|…)")  # "...продолжение" belongs to what was said before
_SMALL = re.compile(r"\W{0,8}[а-яё]")
_STOP = re.compile(r"[.!?…][\"'»“”)\]]*(?=\s|$)")


@dataclass(frozen=True)
class Unit:
    """A piece of speech that is scored once; times in seconds.

    It knows whether it begins and ends where a sentence does.
    """

    start: float
    end: float
    text: str
    begins: bool
    ends: bool


def split_units(cues: Sequence[Cue]) -> list[Unit]:
    """Cut speech into sentences, or at pauses where the text has no punctuation.

    Text with a sentence end in 50 words counts as punctuated: its sentences are razdel's, and a
    silence of 2 s breaks them. Without punctuation a pause of 0.7 s is all that tells where a
    thought ends. Pieces over 12 s or 30 words are cut at the longest pause, comma or cue edge near
    their middle; a single word that seems to last longer is cut short. Times inside a cue are
    shared out by characters. What begins with dots ("...и теперь") or, where sentences begin with
    capitals, with a small letter goes on with the sentence before, however long the pause is.

    Args:
        cues: In any order; notes such as `[смех]` and credits count as silence, and a cue ends
            where the next one starts.

    Returns:
        Units in order, times in whole milliseconds.

    Raises:
        DataError: A time is negative or no number, or a cue ends before it starts.
    """
    spoken = _spoken(cues)
    if not spoken:
        return []
    text = " ".join(cue.text for cue in spoken)
    stop = np.cumsum([len(cue.text) + 1 for cue in spoken]) - 1
    cue_chars = np.stack([np.r_[0, stop[:-1] + 1], stop], axis=1)
    chars = np.array([match.span() for match in _WORD.finditer(text)])
    times = np.interp(
        chars, cue_chars.ravel(), [t for cue in spoken for t in (cue.start, cue.end)]
    ).round(3)
    new_cue = np.isin(chars[:, 0], cue_chars[:, 0])
    pauses = (
        np.r_[0, times[1:, 0] - times[:-1, 1]] * new_cue
    )  # inside a cue nobody knows the pauses
    punctuated = 50 * len(_STOP.findall(text)) >= len(chars)
    cuts = [0, *np.flatnonzero(pauses >= (2.0 if punctuated else 0.7)).tolist(), len(chars)]
    if punctuated:
        for a, b in pairwise(tuple(cuts)):
            offset = int(chars[a, 0])
            sentences = razdel.sentenize(text[offset : int(chars[b - 1, 1])])
            cuts += np.searchsorted(
                chars[:, 0], [offset + sentence.start for sentence in sentences]
            ).tolist()
        cuts = sorted(set(cuts))
    edges = {a for a in cuts if not punctuated or a == 0 or _STOP.search(text, *chars[a - 1])}
    begun = [(a, int(chars[a, 0])) for a in edges if a < len(chars)]
    small = {a for a, at in begun if _SMALL.match(text, at)} if punctuated else set()
    edges -= {a for a, at in begun if _GOES_ON.match(text, at)} | (
        small if 2 * len(small) < len(begun) else set()
    )
    # Where a long piece is best cut: seconds of pause, 0.3 each for a comma before and for the edge
    # of a cue.
    value = pauses + 0.3 * new_cue
    value[1:] += [0.3 * (text[end - 1] in ",;:—") for end in chars[:-1, 1]]
    units = []
    for a, b in (piece for pair in pairwise(cuts) for piece in _capped(*pair, times, value)):
        line, start, end = (
            text[chars[a, 0] : chars[b - 1, 1]],
            float(times[a, 0]),
            float(times[b - 1, 1]),
        )
        if _LETTER.search(line) and not is_credit(line):
            units.append(Unit(start, min(end, start + MAX_UNIT_S), line, a in edges, b in edges))
    return units


def is_credit(text: str) -> bool:
    """Whether a cue or a sentence is no speech but credits.

    An example is "Редактор субтитров А.Иванова".
    """
    return _CREDIT.match(text) is not None and len(text.split()) <= MAX_CREDIT_WORDS


def _spoken(cues: Sequence[Cue]) -> list[Cue]:
    """Cues that hold speech, by time and without overlap; cues that start together are one."""
    for cue in cues:
        if not 0 <= cue.start <= cue.end < float("inf"):
            raise DataError(
                f"cue {cue.text!r}: expected 0 <= start <= end in seconds, found {cue.start} to "
                f"{cue.end}"
            )
    in_capitals = 2 * sum(cue.text.isupper() for cue in cues) > len(cues)
    spoken: list[Cue] = []
    together: list[list[str]] = []  # the texts of each
    for cue in sorted(cues, key=lambda c: (c.start, c.end, c.text)):
        text = " ".join(_NOTE.sub(" ", cue.text).split())
        if not _LETTER.search(text) or _ALL_IN_BRACKETS.fullmatch(text) or is_credit(text):
            continue
        if not in_capitals and _SOUND.fullmatch(text):
            continue
        if spoken and spoken[-1].start == cue.start:
            spoken[-1] = cue
            together[-1].append(text)
            continue
        if spoken and spoken[-1].end > cue.start:
            spoken[-1] = replace(spoken[-1], end=cue.start)
        spoken.append(cue)
        together.append([text])
    return [replace(cue, text=" ".join(texts)) for cue, texts in zip(spoken, together, strict=True)]


def _capped(a: int, b: int, times: np.ndarray, value: np.ndarray) -> list[tuple[int, int]]:
    """Words `a` .. `b - 1`, cut in two until each piece is within the caps."""
    pieces, waiting = [], [(a, b)]
    while waiting:
        a, b = waiting.pop()
        if b - a == 1 or (b - a <= MAX_UNIT_WORDS and times[b - 1, 1] - times[a, 0] <= MAX_UNIT_S):
            pieces.append((a, b))
            continue
        # What is very long is cut in its middle part only, or it would be taken apart word by word.
        rim = (b - a) // 4 if b - a > 1000 else 1
        inner = np.arange(a + rim, b - rim + 1)
        # Twice the distance from the middle: a short pause at the rim does not win.
        cut = int(inner[np.argmax(value[inner] - 2 * np.abs(inner - (a + b) / 2) / (b - a))])
        waiting += [(cut, b), (a, cut)]
    return pieces
