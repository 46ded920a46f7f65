"""One text: its repair, what makes two texts the same, and how much of it is Cyrillic.

Lesson 01 derives it. Every reader goes through `normalise`, so a model meets texts as it met them in training.
"""

from __future__ import annotations

import html
import re
import unicodedata

_INVISIBLE = re.compile("[\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff\u00ad]")
# A zero-width joiner is part of composed emoji (family, flags); between letters it is a leftover.
_JOINER_IN_TEXT = re.compile("(?<=\\w)\u200d|\u200d(?=\\w)")
# GoEmotions masks names and religions; its translations spell the mask in Russian, in any case and number.
_PLACEHOLDERS = (
    (
        re.compile(r"\[\s*(?:name|имя|имени|именем|именами|имена|имён|имен|фамили\w*|имярек)\s*\]", re.I),
        "[NAME]",
    ),
    (re.compile(r"\[\s*(?:religion|религи\w*)\s*\]", re.I), "[RELIGION]"),
)


def normalise(text: str) -> str:
    """Repair a text without changing what it says.

    Unicode NFC, HTML entities, invisible characters and soft hyphens out, `[ИМЯ]` and its inflected twins to `[NAME]`,
    any run of white space to one space. Case, ё, punctuation, emoji and typos stay: models may use them.
    """
    text = unicodedata.normalize("NFC", html.unescape(text))
    text = _JOINER_IN_TEXT.sub("", _INVISIBLE.sub("", text))
    for pattern, placeholder in _PLACEHOLDERS:
        text = pattern.sub(placeholder, text)
    return " ".join(text.split())


# Letters and digits, the question mark, and pictures: what can change the feeling of equal words. Commas, full stops,
# brackets and exclamation marks come and go in copies of one text.
_NOT_COMPARED = re.compile("[^\\w?\u2190-\u2bff\U0001f000-\U0001faff]+|_+")
_REPEATED_SIGN = re.compile(r"([^\w\s])(?:\s*\1)+")


def comparison_key(text: str) -> str:
    """What makes two texts "the same": lower case, ё as е, without punctuation; repeated signs count once.

    A text of which nothing is left ("...") is its own key.
    """
    key = _NOT_COMPARED.sub(" ", text.casefold().replace("ё", "е"))
    return " ".join(_REPEATED_SIGN.sub(r"\1", key).split()) or text


def cyrillic_share(text: str) -> float:
    """Share of Cyrillic letters among the letters of a text; 1.0 without any letter. Placeholders do not count."""
    letters = [char for char in re.sub(r"\[[A-Z]+\]", "", text) if char.isalpha()]
    return sum("\u0400" <= char <= "\u04ff" for char in letters) / len(letters) if letters else 1.0
