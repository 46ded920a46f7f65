"""What a stranger may write costs time in proportion to its length, whatever it is; and how growth
is measured."""

import ast
import contextlib
import importlib.util
import re
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import timing
from tests.timing import grows
from viralbert_utils.base import texts, tokens
from viralbert_utils.data import cleaning, emotions, sources, tables
from viralbert_utils.encoders import loading
from viralbert_utils.lessons import cascade, label_errors, suspects

MODULES = (texts, sources, tables, emotions, cleaning, label_errors, suspects, tokens, cascade)
FUNCTIONS = (
    "compile",
    "search",
    "match",
    "fullmatch",
    "split",
    "findall",
    "finditer",
    "sub",
    "subn",
)
# One unit of each kind of input, repeated; together they are the alphabet from which slow inputs
# are made.
UNITS = {
    "letters": "а",
    "capitals": "A",
    "digits": "7",
    "blanks": " ",
    "tabs": "\t",
    "returns": "\r",
    "breaks": "\n",
    "marks": "\u0301",
    "marks in two orders": "\u0301\u0323",
    "marks that are letters": "е\u0308\u0301",
    "stress": "о\u0301",
    "mojibake": "РџСЂРёРІРµС‚ ",
    "Latin stress": "áб",
    "joiners": "\u200d",
    "fillers": "\u3164",
    "selectors": "\ufe0f",
    "tags": "\U000e0067",
    "flags without end": "🏴\U000e0067",
    "families": "👨\u200d",
    "joiners and letters": "а\u200d",
    "marks and joiners": "\u0323\u200b\u0301",
    "underscores": "_",
    "questions": "?",
    "questions and blanks": "? ",
    "two emoji": "😂😡",
    "symbols": "€",
    "dashes": "—",
    "brackets": "[",
    "names": "[имя",
    "families of names": "[фамилия ",
    "masks": "[ ",
    "ampersands": "&",
    "hashes": "&#",
    "hex": "&#x",
    "entities": "&amp;",
    "half entities": "&copy",
    "surrogates": "\ud83d",
    "commas": ",",
    "semicolons": ";",
    "pipes": "|",
    "quotes": '"',
    "apostrophes": "'",
    "quoted": '"a",',
    "equals": "=",
    "formulas": ";=",
    "separators": "sep=;",
    "braces": "{",
    "objects": '{"a":',
    "names of labels": "joy ",
    "labels": "27,",
    "words": "без эмоций ",
    "zeros": "\0",
    "points": ".0",
    "minus": "-",
}
BEGINNINGS = ("", "[", "[фамилия", "&#", "&", '"', "1", "{", "?", "е", "sep=")
ENDS = ("", "а", "!")


def is_linear(
    call: Callable[[str], object],
    unit: str,
    length: int,
    begin: str = "",
    end: str = "",
    short_s: float = timing.SHORT_S,
) -> bool:
    """Whether units between a beginning and an end, which may be refused, cost time in proportion
    to their number."""

    def answer(text: str) -> None:
        with contextlib.suppress(ValueError):
            call(text)

    return not grows(answer, lambda n: begin + unit * (n // len(unit)) + end, length, short_s)


def patterns_of(module: ModuleType) -> dict[str, re.Pattern[str]]:
    """Every regular expression of a module: compiled ones, wherever they are kept, and those
    written inside functions.

    Raises:
        NameError: One is made of what only its function knows, and cannot be measured.
    """
    own = module.__name__.rpartition(".")[2]

    def within(name: str, value: object) -> dict[str, re.Pattern[Any]]:
        if isinstance(value, re.Pattern):
            return {name: value}
        if isinstance(value, type) and value.__module__ == module.__name__:
            value = dict(vars(value))
        if isinstance(value, tuple | list):
            value = dict(enumerate(value))
        parts = value.items() if isinstance(value, dict) else ()
        return {
            key: found
            for place, part in parts
            for key, found in within(f"{name}[{place}]", part).items()
        }

    found = {}
    for name, value in vars(module).items():
        if not name.startswith("__"):
            found |= within(f"{own}.{name}", value)
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            f"re.{name}" for name in FUNCTIONS
        }:
            written = eval(
                ast.unparse(node.args[0]), vars(module)
            )  # an expression of module-level names
            if written not in {pattern.pattern for pattern in found.values()}:
                found[f"{own}, line {node.lineno}"] = re.compile(written)
    return found


def patterns() -> dict[str, re.Pattern[str]]:
    return {name: pattern for module in MODULES for name, pattern in patterns_of(module).items()}


def test_the_walk_sees_patterns_wherever_they_stand():
    found = patterns()
    assert {
        "texts._ENTITY",
        "texts._PLACEHOLDERS[1][0]",
        "tokens._LONG_WORD",
        "suspects._FORMULA",
    } <= set(found)
    assert {r"\[[A-Z]+\]", f"[{texts._STRESS}]"} <= {pattern.pattern for pattern in found.values()}


def test_the_walk_sees_every_place_of_a_pattern(tmp_path):
    path = tmp_path / "new.py"
    path.write_text(
        "import re\nA = {'a': (re.compile('1'), [re.compile('2')])}\nclass B:\n    b = "
        "re.compile('3')\n"
        "C = '4'\ndef d(text, own='5'):\n    return re.search(C + 'x', text)\n"
    )
    spec = importlib.util.spec_from_file_location("new", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {pattern.pattern for pattern in patterns_of(module).values()} == {"1", "2", "3", "4x"}
    path.write_text(path.read_text().replace("C + 'x'", "own"))
    with pytest.raises(NameError):
        patterns_of(module)


def every_pair(text: str) -> int:
    return sum(a == b for a in text for b in text)


def some_pairs(text: str) -> int:
    """For 100 characters as much linear work as quadratic."""
    return every_pair(text) + sum(a == b for a in text for b in "а" * 100)


def test_the_measure_tells_a_square_from_a_line():
    assert not is_linear(re.compile(r"\s+$").search, " ", 500, end="а", short_s=0.0005)
    assert not is_linear(every_pair, "а", 100, short_s=0.001)
    assert not is_linear(some_pairs, "а", 100, short_s=0.001)
    # Of nothing that is kept: fresh memory costs more than twice for twice as much.
    assert is_linear(lambda text: sum(char == "б" for char in text), "а", 400_000)


@pytest.mark.parametrize(("power", "is_slow"), [(1, False), (2, True)])
def test_a_machine_with_other_work_changes_nothing_about_it(monkeypatch, power, is_slow):
    """Every third run takes three times as long, and every run longer than the one before it."""
    now, runs = [0.0], []

    def call(n: int) -> None:
        runs.append(n)
        now[0] += n**power * (3 if len(runs) % 3 == 0 else 1) * 1.01 ** len(runs)

    monkeypatch.setattr(timing.time, "process_time", lambda: now[0])
    assert bool(grows(call, int, 1000)) == is_slow
    # What looks slow is measured in every round, and then with eight times the input.
    rounds = 2 * timing.ROUNDS + 1 if is_slow else 2
    assert len(runs) == rounds * timing.REPETITIONS


@pytest.mark.parametrize("step", [1000, 10_000])
def test_a_step_where_the_cache_ends_or_other_work_begins_is_no_square(monkeypatch, step):
    now = [0.0]

    def call(n: int) -> None:
        now[0] += n * (1 if n <= step else 2.5)

    monkeypatch.setattr(timing.time, "process_time", lambda: now[0])
    assert not grows(call, int, 1000)


@pytest.mark.parametrize("name", patterns())
def test_no_pattern_takes_the_square_of_a_text(name):
    def call(text: str) -> None:
        for _ in pattern.finditer(text):
            pass

    pattern = patterns()[name]
    slow = [
        case
        for case in product(UNITS, BEGINNINGS, ENDS)
        if not is_linear(call, UNITS[case[0]], 5_000, *case[1:])
    ]
    assert slow == []


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize(
    "call",
    [texts.normalise, texts.comparison_key, texts.cyrillic_share, emotions.parse_labels],
    ids=lambda call: call.__name__,
)
def test_no_text_and_no_label_takes_the_square_of_its_length(call, kind):
    assert all(
        is_linear(call, UNITS[kind], 10_000, begin, end) for begin, end in (("", ""), ("[", "а"))
    )


@pytest.mark.parametrize("kind", UNITS)
def test_no_word_is_too_long_for_the_tokenizer(kind, embedded_tokenizer):
    unit = (
        UNITS[kind].encode("utf-8", "replace").decode()
    )  # `normalise` has taken half surrogate pairs out
    assert is_linear(lambda text: tokens.encode(embedded_tokenizer, [text]), unit, 6_000)


@pytest.fixture(scope="module")
def embedded_tokenizer():
    return loading.load_tokenizer("embedded")


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl"])
def test_no_table_takes_the_square_of_its_length(tmp_path, name, kind):
    def read(begin: str, text: str) -> None:
        path.write_text(begin + text, encoding="utf-8", errors="replace")
        tables.read_table(path)

    path = tmp_path / name
    beginnings = ("", "text\n", '"', '"text";label\nа;"') if "sv" in name else ("", '{"text": "')
    assert all(is_linear(partial(read, begin), UNITS[kind], 10_000) for begin in beginnings)


def test_a_word_that_occurs_keeps_its_pieces_and_a_long_one_is_read(embedded_tokenizer):
    for text in (
        "а" * 100,
        "https://example.ru/" + "путь-за-путём/" * 30,
        "слово,слово" * 50,
        "ха" * 50 + "!",
    ):
        assert tokens.encode(embedded_tokenizer, [text], 5000) == [
            embedded_tokenizer(text)["input_ids"]
        ]
    (ids,) = tokens.encode(embedded_tokenizer, ["ха" * 20_000], 50_000)
    assert len(ids) > 200
    assert embedded_tokenizer.unk_token_id not in ids
    assert tokens.encode(embedded_tokenizer._tokenizer, ["ха" * 20_000], 50_000) == [ids]
