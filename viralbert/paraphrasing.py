"""More training rows by paraphrase: a sequence-to-sequence model says each text once more.

A paraphrase keeps the labels of its text. Only training rows are paraphrased. A paraphrase is
dropped if it equals or nearly equals (by MinHash, see `cleaning.near_duplicates`) a text of the
table, an earlier paraphrase, or a text of an evaluation split: that one would be half known.
"""

from __future__ import annotations

import csv
import io
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from viralbert import rewriting
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path, write_whole
from viralbert_utils.base.texts import comparison_key
from viralbert_utils.data.cleaning import near_duplicates
from viralbert_utils.data.tables import FORMATS, read_table, require_columns

MODEL = "cointegrated/rut5-base-paraphraser"
SOURCE_ROW = "paraphrase_of"  # column of the target: number of the row, empty for the row itself
NEAR = 0.8  # Jaccard similarity of two texts that count as one, as in cleaning
REASONS = ("empty or too long", "equal", "nearly equal", "like an evaluation text")
_EVALUATION = ("validation", "valid", "dev", "test")
_N_BEAMS, _NO_REPEAT = 5, 4  # words in a row that are not taken over from the text
_log = logging.getLogger(__name__)


def paraphrase_file(
    source: Path | str,
    target: Path | str,
    column: str | None = None,
    model: str = MODEL,
    copies: int = 1,
    against: Sequence[Path | str] = (),
    batch_size: int = 32,
) -> tuple[int, dict[str, int]]:
    """Add paraphrases to a table of training rows.

    The target gets all rows of the source as they stand, then the paraphrases: each carries what
    its row carries, its text aside, and the row's number in `paraphrase_of`. An `id` gets an ending
    (`e0001-p1`).

    Args:
        source: The training table, such as `mydata/emotions/train.csv`. Evaluation tables beside
            it (`validation.*`, `test.*`) are read, too, so that no paraphrase comes near to them.
        target: CSV file to write.
        column: The texts; `ru_text` where the table has it, else `text`.
        model: Hub name or folder.
        copies: Paraphrases asked of each text.
        against: Further evaluation tables, with the same column of texts.
        batch_size: Texts paraphrased at once.

    Returns:
        Paraphrases written, and those dropped for each of `REASONS`.

    Raises:
        DataError: A file or column is not there, the table is none to learn from, or the model
            cannot be loaded.
    """
    path, output = own_path(source), own_path(target)
    _check_paths(path, output, copies)
    table = read_table(path).reset_index(drop=True)
    if SOURCE_ROW in table:
        raise DataError(
            f"{source} holds paraphrases already (column {SOURCE_ROW}); give the table that it was "
            "made from"
        )
    column = column or ("ru_text" if "ru_text" in table else "text")
    require_columns(table, [column], str(source), "name the column of the texts with --column")
    evaluation = _evaluation_texts(path, against, column)
    texts = [str(text) for text in table[column]]
    rewritten = rewriting.rewrite(
        texts,
        *rewriting.load_model(model, "paraphrase"),
        kept=output.with_name(f"{output.name}.paraphrases.jsonl"),
        batch_size=batch_size,
        what="paraphrase",
        num_beams=max(_N_BEAMS, copies),
        num_return_sequences=copies,
        encoder_no_repeat_ngram_size=_NO_REPEAT,
    )
    new, dropped = select(texts, rewritten, evaluation)
    dropped["empty or too long"] = copies * len(texts) - sum(map(len, rewritten))
    buffer = io.StringIO()
    whole = _with_paraphrases(table, column, new)
    whole.to_csv(buffer, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    write_whole(output, buffer.getvalue())
    return len(new), {reason: dropped.get(reason, 0) for reason in REASONS}


def select(
    texts: Sequence[str], rewritten: Sequence[Sequence[str]], evaluation: Sequence[str] = ()
) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """The paraphrases that say something new.

    Args:
        texts: All texts of the table.
        rewritten: The paraphrases of each.
        evaluation: Texts of validation and test.

    Returns:
        `(row, paraphrase)` for each that stays, in the order of the rows; and how many are dropped
        for which of `REASONS`.
    """
    candidates = [(row, own) for row, several in enumerate(rewritten) for own in several]
    known = [comparison_key(text) for text in (*evaluation, *texts)]
    keys = known + [comparison_key(own) for _, own in candidates]
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    near = {later: earlier for earlier, later in near_duplicates(keys, NEAR, len(known))}
    dropped: Counter[str] = Counter()
    new = []
    for position, candidate in enumerate(candidates, len(known)):
        equal = first[keys[position]]
        like = equal if equal < position else near.get(position)
        if like is None:
            new.append(candidate)
        elif like < len(evaluation):
            dropped["like an evaluation text"] += 1
        else:
            dropped["equal" if equal < position else "nearly equal"] += 1
    return new, dict(dropped)


def _check_paths(source: Path, target: Path, copies: int) -> None:
    if copies < 1:
        raise DataError(f"expected at least one copy of each text, found {copies}")
    if source.stem.lower() in _EVALUATION:
        raise DataError(
            f"{source} is an evaluation table by its name, and only training rows are paraphrased: "
            "what is said twice in it would count twice; give train.csv"
        )
    if target.suffix.lower() != ".csv":
        raise DataError(f"{target}: expected the name of a CSV file to write, such as train.csv")
    if source.resolve() == target.resolve():
        raise DataError(f"{source} would be written over; give another file for the paraphrases")


def _evaluation_texts(source: Path, against: Sequence[Path | str], column: str) -> list[str]:
    """Texts of the evaluation tables beside the source, and of those that the caller names."""
    beside = [
        path
        for path in sorted(source.parent.glob("*"))
        if path.stem.lower() in _EVALUATION and path.suffix.lower() in FORMATS and path.is_file()
    ]
    paths = list(dict.fromkeys([*beside, *map(own_path, against)]))
    if not paths:
        _log.warning(
            "%s has no validation or test table beside it: split it before it is paraphrased; a "
            "table that is split afterwards has paraphrases of its test rows in the training part",
            source,
        )
    texts: list[str] = []
    for path in paths:
        table = read_table(path)
        require_columns(table, [column], str(path))
        texts += [str(text) for text in table[column]]
    return texts


def _with_paraphrases(
    table: pd.DataFrame, column: str, new: Sequence[tuple[int, str]]
) -> pd.DataFrame:
    rows = [row for row, _ in new]
    copies = table.iloc[rows].copy()
    copies[column] = [text for _, text in new]
    copies[SOURCE_ROW] = rows
    if "id" in table:
        number = copies.groupby(SOURCE_ROW).cumcount() + 1
        copies["id"] = [f"{own}-p{n}" for own, n in zip(copies["id"], number, strict=True)]
    return pd.concat([table.assign(**{SOURCE_ROW: ""}), copies], ignore_index=True)
