"""One text: its repair, what makes two texts the same, and how much of it is Cyrillic.

Lesson 01 derives it. Every reader goes through `normalise`, so a model meets texts as it met them
in training.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from functools import cache, partial
from html.entities import html5

# Unicode's property Default_Ignorable_Code_Point, control characters that are no white space, and
# the marks of interlinear annotations: nobody sees them.
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
)
# What is seen as a gap: the empty Braille pattern, the fillers of Hangul, the place of an object
# that is gone.
_GAP = re.compile("[\u115f\u1160\u2800\u3164\uffa0\ufffc]")
_PICTURES = "\u2190-\u2bff\U0001f000-\U0001faff"
# Composed emoji need their invisible parts: presentation, joiner (family), the letters of a flag
# (Scotland).
_UNSEEN = re.compile(
    f"([©®‼⁉™ℹ〰〽㊗㊙{_PICTURES}][\ufe0e\ufe0f]?(?:\u200d(?=[{_PICTURES}])|[\U000e0020-\U000e007e]{{1,7}}\U000e007f)?"
    f"|[0-9#*]\ufe0f\u20e3)|[{INVISIBLE}]+"
)
# HTML's own rule also reads entities without semicolon, and so eats the parameters of addresses
# (`&copy=2`).
_ENTITY = re.compile("&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,8}|([a-zA-Z][a-zA-Z0-9]{1,31}));")
# on one letter, as in Unicode's "Stream-Safe Text Format": putting them in order takes their square
_MAX_MARKS = 30
# Every second character of Russian in UTF-8 is one of these if it was read as CP1251 or Latin-1.
_MAY_BE_MOJIBAKE = re.compile("[РСÐÑ]")
# All combining marks are among these; letters, spaces, ASCII and pictures are not.
_MANY_MARKS = re.compile(rf"[^\w\s\x21-\x7e{_PICTURES}]{{{_MAX_MARKS + 1},}}")
# Stress is marked on vowels. On other letters the same marks make letters of their own (ќ, ѓ), and
# other marks do so on vowels (й, ё, ї).
_STRESS = "\u0300\u0301\u030d\u030f\u0311\u0316\u0317"
_MAY_BE_STRESSED = re.compile(f"[{_STRESS}ѐѝЀЍáéóýàèòỳÁÉÓÀÈÒ´`ˊˋ]")
_STRESSED = re.compile("([аеиоуыэюяіѣєәөүӕрАЕИОУЫЭЮЯІѢЄӘӨҮӔР])([\u0300-\u036f]+)")
_LONELY = re.compile(f"(?:(?<=\\s)|^)[{_STRESS}]+")
# Who has no stress mark on the keyboard takes the sign of an accent that stands by itself.
_ACCENT = re.compile(
    r"(?<=[аеиоуыэюяАЕИОУЫЭЮЯ])(?:[´`ˊˋ]++(?=[а-яё])|[´ˊˋ]++(?![\w\u0300-\u036f]))"
)
# Letters of both alphabets that look alike. Where both stand in a word, some were typed in the
# place of the others, or, with a stress mark, because the keyboard has one on those alone.
_LATIN_TWINS, _CYRILLIC_TWINS = "aceopxykABCEHKMOPTXY", "асеорхукАВСЕНКМОРТХУ"
_TO_CYRILLIC = str.maketrans(_LATIN_TWINS, _CYRILLIC_TWINS)
_TO_LATIN = str.maketrans(_CYRILLIC_TWINS, _LATIN_TWINS)
_WORD = re.compile("[a-zA-Z\u0400-\u052f\u0300-\u036f]+")
_CYRILLIC_WORD = re.compile("[\u0400-\u052f\u0300-\u036f]+")
_LATIN_WORD = re.compile("[a-zA-Z\u0300-\u0307\u0309-\u036f]+")  # ё is no ë
_MIXED = re.compile(
    "[a-zA-Z][\u0300-\u036f]*+[\u0400-\u052f]|[\u0400-\u052f][\u0300-\u036f]*+[a-zA-Z]"
)
# GoEmotions masks names and religions; its translations spell the mask in Russian, in any case and
# number.
_PLACEHOLDERS = (
    (
        re.compile(
            r"\[\s*(?:name|имя|имени|именем|именами|имена|имён|имен|фамили\w*|имярек)\s*\]", re.I
        ),
        "[NAME]",
    ),
    (re.compile(r"\[\s*(?:religion|религи\w*)\s*\]", re.I), "[RELIGION]"),
)


def normalise(text: str) -> str:
    """Repair a text without changing what it says; if nothing is to be seen, nothing is left.

    Text that was read in a wrong encoding (`РџСЂРёРІРµС‚` for `Привет`) is read again in the right
    one. HTML entities (with their semicolon) are decoded, the Unicode form is NFC. Invisible
    characters, soft hyphens and stress marks go. Letters of the other alphabet in a word become
    those that look like them, `[ИМЯ]` and its inflected twins `[NAME]`, any run of white space one
    space, and half a surrogate pair, from a damaged JSON escape, `�`. Case, й, ё, accents of other
    languages, punctuation, emoji and typos stay: models may use them.
    """
    text = _ENTITY.sub(_decoded, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if _MAY_BE_MOJIBAKE.search(text):
        text = _mojibake_repair()(text)
    text = _UNSEEN.sub(lambda match: match[1] or "", _GAP.sub(" ", text))
    text = unicodedata.normalize("NFC", _MANY_MARKS.sub(_fewer_marks, text))
    if _MAY_BE_STRESSED.search(text) or _MIXED.search(text):
        text = _without_stress(_WORD.sub(_in_one_alphabet, unicodedata.normalize("NFD", text)))
    for pattern, placeholder in _PLACEHOLDERS:
        text = pattern.sub(placeholder, text)
    return " ".join(text.split())


@cache
def _mojibake_repair() -> Callable[[str], str]:
    from ftfy import TextFixerConfig, fix_encoding  # slow to import, and `--help` reads no text

    # Control characters and parts of a text are left alone: a few of 300,000 sound texts have some.
    config = TextFixerConfig(fix_c1_controls=False, decode_inconsistent_utf8=False)
    return partial(fix_encoding, config=config)


def _decoded(entity: re.Match[str]) -> str:
    if entity[1] is None:
        digits = entity[0].strip("&#;")
        code = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
        # What writes UTF-16 in decimals writes emoji as two halves.
        return chr(code) if 0xD800 <= code < 0xE000 else html.unescape(entity[0])
    return html.unescape(entity[0]) if f"{entity[1]};" in html5 else entity[0]


def _fewer_marks(run: re.Match[str]) -> str:
    chars, n_marks = [], 0
    for char in run[0]:
        n_marks = (
            n_marks + len(unicodedata.normalize("NFD", char)) if unicodedata.combining(char) else 0
        )
        if n_marks <= _MAX_MARKS:
            chars.append(char)
    return "".join(chars)


def _in_one_alphabet(letters: re.Match[str]) -> str:
    word = letters[0]
    if _MIXED.search(word) and _CYRILLIC_WORD.fullmatch(cyrillic := word.translate(_TO_CYRILLIC)):
        return cyrillic
    # A foreign name with a Russian ending is written in both on purpose.
    if word[-1].isascii() and _LATIN_WORD.fullmatch(latin := word.translate(_TO_LATIN)):
        return latin
    return word


def _without_stress(text: str) -> str:
    text = _STRESSED.sub(
        lambda match: match[1] + re.sub(f"[{_STRESS}]", "", match[2]), _LONELY.sub("", text)
    )
    return _ACCENT.sub("", unicodedata.normalize("NFC", text))


# Letters and digits, the question mark, and pictures: what can change the feeling of equal words.
# Commas, full stops, brackets and exclamation marks come and go in copies of one text.
_NOT_COMPARED = re.compile(f"[^\\w?{_PICTURES}]+|_+")
_REPEATED_SIGN = re.compile(r"([^\w\s])(?:\s*\1)+")


def comparison_key(text: str) -> str:
    """What makes two texts "the same": no case, no punctuation, ё as е, repeated signs once.

    A text of which nothing is left ("...") is its own key.
    """
    text = normalise(text)
    key = _NOT_COMPARED.sub(" ", text.casefold().replace("ё", "е"))
    return " ".join(_REPEATED_SIGN.sub(r"\1", key).split()) or text


def cyrillic_share(text: str) -> float:
    """Share of Cyrillic among the letters, placeholders apart; 1.0 without any letter."""
    letters = [char for char in re.sub(r"\[[A-Z]+\]", "", text) if char.isalpha()]
    return sum("\u0400" <= char <= "\u04ff" for char in letters) / len(letters) if letters else 1.0
