"""Answers for texts and tables: `viralbert predict`."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from viralbert.commands.options import example, model_folder, model_options
from viralbert.pipes import opened
from viralbert.terminal import UNPRINTABLE, complain, counted
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import check_there, own_path

if TYPE_CHECKING:
    import pandas as pd

    from viralbert.commands.options import Commands

_SEPARATOR = re.compile("[,;|\t]")
_JSON = re.compile(r'\s*(?:\{\s*"|\[\s*[{"])')


def add_predict(commands: Commands) -> None:
    """Add `viralbert predict`."""
    command = commands.add_parser(
        "predict",
        parents=[model_options()],
        help="a classifier's answers for texts, as JSON lines",
        **example(
            "viralbert predict 'Муж забыл меня на заправке и вспомнил через сто километров. Ржу до "
            "сих пор'"
        ),
    )
    command.add_argument(
        "--aim",
        default="",
        metavar="NAME",
        help="decide by thresholds for a purpose that are stored with the model; without it, by "
        "its usual ones",
    )
    command.add_argument("texts", nargs="*", metavar="TEXT")
    command.add_argument(
        "--file",
        default="",
        help="a .txt file with one text on each line, or a CSV, TSV, Parquet, JSON or JSONL table "
        "with a column text; - reads lines from the standard input",
    )
    command.add_argument(
        "--table",
        default="",
        metavar="FILE",
        help="a table of videos, for a hybrid or a cascade of lesson 07 (--model)",
    )
    command.add_argument(
        "--label",
        metavar="COLUMN",
        help="with --table: the column of the true class, for figures; label if not given",
    )
    command.set_defaults(function=_predict)


def _predict(options: argparse.Namespace) -> int:
    sources = {"texts": options.texts, "--file": options.file, "--table": options.table}
    given = [name for name, value in sources.items() if value]
    if not given:
        raise DataError(
            "expected texts, --file or --table, found none of them: viralbert predict 'Кот сам "
            "открыл дверь.'"
        )
    if len(given) > 1:
        raise DataError(f"found {' and '.join(given)}; give one of them, and leave the rest out")
    if options.table and options.aim:
        raise DataError("--aim chooses thresholds for texts, and --table has none; leave one out")
    if options.label and not options.table:
        raise DataError("--label names a column of --table; give both, or leave it out")
    if options.table:
        return _predict_table(options)
    # The answer lags behind by a window of texts; tee keeps them meanwhile.
    texts, shown = itertools.tee(options.texts or _texts(options.file))
    folder = model_folder(options)
    from viralbert.serving.predictor import Predictor
    from viralbert_utils.base.texts import normalise

    model = Predictor.load(folder, options.device, options.precision)
    if options.aim:
        model = model.for_aim(options.aim)
    n_empty = 0
    try:
        for text, prediction in zip(shown, model.predict_iter(texts), strict=True):
            n_empty += not normalise(text)
            _print_json({"text": text} | prediction.as_dict())
        sys.stdout.flush()
    except BrokenPipeError:  # "| head" has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if n_empty:
        complain(f"{counted(n_empty, 'empty text')}: all probabilities are 0", "predict")
    return 0


def _predict_table(options: argparse.Namespace) -> int:
    if not options.model:
        raise DataError(
            "--table needs --model with the folder of a hybrid or a cascade; lesson 07 saves "
            "runs/sample/hybrid and runs/sample/cascade (viralbert run --only 07)"
        )
    table = _table(options.table, options.label)  # refused before torch is loaded
    from viralbert import table_answers
    from viralbert_utils.base import devices

    devices.choose(options.device, options.precision)
    model = table_answers.load(options.model, options.device)
    answers = table_answers.answer(model, table, options.label or "label")
    for line in answers.lines:
        _print_json(line)
    sys.stdout.flush()
    for note in (*answers.notes, *table_answers.summary(answers)):
        complain(note, "predict")  # the standard output holds JSON lines and nothing else
    return 0


def _table(file: str, label: str | None) -> pd.DataFrame:
    """The rows to answer; the column of the class is found in upper or lower case, as the model's
    own columns are."""
    from viralbert_utils.data.tables import read_table, require_columns

    table = read_table(own_path(file), cp1251=True)  # the answers show what was read
    wanted = label or "label"
    if wanted not in table:
        by_name = {str(name).casefold(): name for name in reversed(table.columns)}
        table = table.rename(columns={by_name.get(wanted.casefold()): wanted})
    remedy = "give --label the name of a column that is there"
    require_columns(table, [label] if label else [], file, remedy)
    return table


def _print_json(line: dict[str, Any]) -> None:
    text = json.dumps(line, ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be printed
    print(UNPRINTABLE.sub(lambda match: json.dumps(match[0])[1:-1], text))


def _texts(file: str) -> Iterator[str]:
    """The texts of a table, of a `.txt` file or of a pipe; the first one is there already.

    So a file that cannot be read is refused before a model is loaded.
    """
    texts = _lines(file)
    try:
        first = next(texts)
    except StopIteration:
        raise DataError(
            f"{file if file != '-' else 'the standard input'}: expected a text a line, found none; "
            "write at least one"
        ) from None
    return itertools.chain([first], texts)


def _lines(file: str) -> Iterator[str]:
    """The texts of a table, of a `.txt` file or of a pipe, line by line where it can be."""
    from viralbert_utils.data.tables import FORMATS, encoding_of, read_table, undecodable

    path = own_path(file)
    # A pipe of the shell, such as /dev/fd/63, has no ending.
    if file != "-" and path.suffix.lower() in FORMATS:
        table = read_table(path, cp1251=True)  # each answer shows its text
        column = next((name for name in table if _is_named_text(str(name))), None)
        if column is None:
            found = ", ".join(map(str, table.columns))
            raise DataError(
                f"{file}: no column 'text'; found {found}: rename the column of the texts to text"
            )
        yield from table[column]
        return
    if path.is_file() and path.suffix.lower() != ".txt":
        raise DataError(
            f"{file}: {path.suffix or 'a file without an ending'} is not read; expected a table "
            "with a column 'text' "
            f"({', '.join(FORMATS)}) or .txt with one text a line: convert it, or pipe its lines "
            "to --file -"
        )
    if file != "-":
        check_there(path)
    number = 0
    try:
        with (
            nullcontext(getattr(sys.stdin, "buffer", sys.stdin))
            if file == "-"
            else opened(path) as source
        ):
            lines = source
            if isinstance(source, io.BufferedReader):
                lines = io.TextIOWrapper(source, encoding_of(source.peek()))
            for number, line in enumerate(lines, 1):
                text = line.lstrip("\ufeff").rstrip("\r\n")
                if number == 1 and _begins_a_table(text):
                    raise DataError(
                        f"{file}: expected a text a line, found what begins a table "
                        f"({text[:60]!r}); give it as a file "
                        f"with its ending ({', '.join(FORMATS)})"
                    )
                yield text
    except UnicodeDecodeError as error:
        raise undecodable(error, file, number + 1) from None
    except OSError as error:
        raise DataError(f"{file} could not be read after line {number}: {error}") from None


def _is_named_text(name: str) -> bool:
    return name.strip(' "').casefold() == "text"


def _begins_a_table(line: str) -> bool:
    """Whether a line is the header of a table with a column `text`, or the beginning of JSON."""
    columns = _SEPARATOR.split(line)
    return _JSON.match(line) is not None or (len(columns) > 1 and any(map(_is_named_text, columns)))
