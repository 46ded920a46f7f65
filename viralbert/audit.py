"""Which labels of somebody's own table are wrong? Suspects as a sheet, corrections taken back.

Lesson 08 derives the ranking, the adjusted margin, and says what it is worth. A judge that has
learnt a wrong label finds nothing wrong with it. So a model judges tables that it was not trained
on, and a table that it was trained on is judged by folds: each row by judges that were fitted on
other rows.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from viralbert.serving.predictor import Prediction, Predictor, Task
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path, write_whole
from viralbert_utils.base.texts import normalise
from viralbert_utils.data.emotions import (
    CEDR_CLASSES,
    cedr_with_no_emotion,
    multi_hot,
    parse_labels,
    plain_label,
    russian_name,
)
from viralbert_utils.data.tables import read_table, require_columns
from viralbert_utils.encoders import loading
from viralbert_utils.evaluation import baselines
from viralbert_utils.lessons import label_errors, linear_head, suspects

FEWEST_ROWS = 50  # of a table that is cut into folds
MAX_FEATURES = 8000  # TF-IDF: words, and as many pieces of words, as in lesson 08


@dataclass(frozen=True)
class LabelSet:
    """The classes of a task, as labels name them.

    Attributes:
        task: Its name in the model.
        names: The classes, in the order of their ids. A task of one class, yes or no, has two
            here: `("not viral", "viral")` for the labels 0 and 1.
        one_each: Whether each text has exactly one label.
    """

    task: str
    names: tuple[str, ...]
    one_each: bool = False

    @classmethod
    def of(cls, tasks: Mapping[str, Task], task: str = "") -> LabelSet:
        """The label set of one of a model's tasks; without a name, emotions or the only one.

        Raises:
            DataError: The model lacks the task, or has several and none was named.
        """
        chosen = task or (
            "emotions" if "emotions" in tasks or len(tasks) > 1 else next(iter(tasks))
        )
        if chosen not in tasks:
            raise DataError(
                f"expected one of the model's tasks, {', '.join(tasks)}, found {chosen!r}; name "
                "the one that the labels belong to (--dataset)"
            )
        names = tasks[chosen].names
        if len(names) == 1:
            return cls(chosen, (f"not {names[0]}", *names), one_each=True)
        return cls(chosen, names, one_each=tasks[chosen].thresholds is None)

    @property
    def is_yes_or_no(self) -> bool:
        """Whether the labels are 0 and 1."""
        return len(self.names) == 2 and self.names[0] == f"not {self.names[1]}"

    def parse(self, field: object) -> list[int]:
        """Label ids from any spelling; see `emotions.parse_labels`.

        Raises:
            DataError: It is empty, or holds what is no label of this set.
        """
        try:
            ids = parse_labels(plain_label(field) if self.is_yes_or_no else field, self.names)
        except ValueError as error:
            raise DataError(f"{error}; known: {', '.join(self.names)}") from None
        if outside := [label for label in ids if not 0 <= label < len(self.names)]:
            raise DataError(f"label id {outside[0]} is outside 0..{len(self.names) - 1}")
        ids = cedr_with_no_emotion(ids) if self.names == CEDR_CLASSES else ids
        self.check_number(ids)
        return ids

    def check_number(self, ids: Sequence[int]) -> None:
        """Refuse no label, or several, where each text has one.

        Raises:
            DataError: It is so.
        """
        if self.one_each and len(ids) != 1:
            raise DataError(
                f"expected exactly one label, as each text has in {self.task}, found {len(ids)}"
            )

    def probabilities(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """What a model says of this task, `(n_texts, n_classes)`."""
        values = np.array([one.probabilities_of(self.task) for one in predictions], dtype=float)
        return np.hstack([1 - values, values]) if self.is_yes_or_no else values


@dataclass(frozen=True)
class Labelled:
    """A table with a text and labels in each row.

    Attributes:
        table: As it was read.
        rows: `id` (the table's own, or the number of the row, from 0), `text`, `labels` (lists of
            ids).
        column: The name of the table's column of labels.
        label_set: What the labels mean.
    """

    table: pd.DataFrame
    rows: pd.DataFrame
    column: str
    label_set: LabelSet

    @classmethod
    def read(cls, file: Path | str, label_set: LabelSet, text: str = "text") -> Labelled:
        """Read a table as it comes, also out of a Russian Excel.

        Args:
            file: CSV (commas, semicolons or tabs; UTF-8, UTF-16 or CP1251), JSON, JSONL or Parquet,
                with a column of texts, one of labels (`labels` or `label`) and maybe `id`; names of
                columns in any case.
            label_set: The labels in it.
            text: The column of the texts.

        Raises:
            DataError: A column is missing, an id stands twice, or a label is not in the set.
        """
        return cls.of(read_labels(file, text), file, label_set, text)

    @classmethod
    def of(
        cls, table: pd.DataFrame, file: Path | str, label_set: LabelSet, text: str = "text"
    ) -> Labelled:
        """The labels in a table from `read_labels`; arguments and errors as of `read`."""
        columns = {str(name).casefold(): str(name) for name in table.columns}
        column = columns.get("labels") or columns["label"]
        labels = []
        for row, field in enumerate(table[column]):
            try:
                labels.append(label_set.parse(field))
            except DataError as error:
                raise DataError(
                    f"{file}, {suspects.in_a_spreadsheet(row)}: {column}={field!r:.80}: {error}"
                ) from None
        ids = table[columns["id"]] if "id" in columns else pd.RangeIndex(len(table))
        repeated = pd.Series([normalise(str(name)) for name in ids]).duplicated()
        if repeated.any():
            row = int(repeated.argmax())
            raise DataError(
                f"{file}, {suspects.in_a_spreadsheet(row)}: id {ids[row]!r} stands twice; "
                "corrections find their rows by it: make ids unique, or remove the column"
            )
        texts = [
            field if isinstance(field, str) else "" for field in table[columns[text.casefold()]]
        ]
        rows = pd.DataFrame({"id": list(ids), "text": texts})
        rows["labels"] = pd.Series(labels, rows.index, dtype=object)
        return cls(table, rows, column, label_set)

    @property
    def hot(self) -> np.ndarray:
        """The labels, `(n_texts, n_classes)`, 0/1."""
        return multi_hot(self.rows["labels"], len(self.label_set.names))

    def spelled(self, labels: Sequence[int]) -> str:
        """Labels as this table writes them: ids, Russian or English names."""
        fields = " ".join(map(str, self.table[self.column]))
        names = [self.label_set.names[label] for label in labels]
        if self.label_set.is_yes_or_no or not any(char.isalpha() for char in fields):
            names = list(map(str, labels))
        elif any("а" <= char <= "я" for char in fields.casefold()):
            names = list(map(russian_name, names))
        return f"[{', '.join(names)}]" if "[" in fields or not names else ", ".join(names)


def read_labels(file: Path | str, text: str = "text") -> pd.DataFrame:
    """Read a table of texts and labels, whatever the labels mean; see `Labelled.read`.

    Raises:
        DataError: The file cannot be read, or a column is missing.
    """
    table = read_table(own_path(file), cp1251=True)
    columns = {str(name).casefold(): str(name) for name in table.columns}
    for wanted, remedy in (
        ((text,), "name the column of the texts with --column"),
        (("labels", "label"), "rename the column of the labels to labels"),
    ):
        if not any(name.casefold() in columns for name in wanted):
            raise DataError(
                f"{file}: no column {' or '.join(map(repr, wanted))}; found "
                f"{', '.join(columns.values())}: {remedy}"
            )
    return table


def check_sheet(sheet: Path | str) -> None:
    """Refuse what is no sheet of suspects.

    Raises:
        DataError: The file cannot be read, or a column is missing.
    """
    require_columns(
        read_table(own_path(sheet), cp1251=True),
        ["id", "text", "corrected"],
        str(sheet),
        "give the sheet that audit has written, with all its columns",
    )


def check_new(sheet: Path | str) -> None:
    """Refuse to write suspects over a file.

    Raises:
        DataError: It is there already: somebody may have filled it in.
    """
    if own_path(sheet).exists():
        raise DataError(
            f"{sheet} is there already, and somebody may have filled it in; give another name, or "
            "remove it"
        )


def by_model(data: Labelled, model: Predictor) -> np.ndarray:
    """What a model says of the texts, `(n_texts, n_classes)`: for texts that it never saw."""
    return data.label_set.probabilities(list(model.predict_iter(data.rows["text"])))


def by_folds(
    data: Labelled, n_folds: int = 5, encoder: str = "embedded", seed: int = 0
) -> np.ndarray:
    """What judges say of rows that they were not fitted on, `(n_texts, n_classes)`.

    As in lesson 08, two judges are fitted on the other folds: a linear head over the layers of an
    encoder that knows no labels, and TF-IDF with logistic regression. The answer is their mean.

    Args:
        data: The table.
        n_folds: Parts that it is cut into.
        encoder: `embedded`, a hub name or a folder.
        seed: Decides on the folds and the order of training.

    Raises:
        DataError: There are too few rows, or the encoder cannot be loaded.
    """
    if len(data.rows) < max(FEWEST_ROWS, n_folds):
        raise DataError(
            f"folds need at least {max(FEWEST_ROWS, n_folds)} rows to learn from, found "
            f"{len(data.rows)}; let a model judge that has not seen them (without --folds)"
        )
    texts, labels = list(data.rows["text"]), data.hot
    vectors = linear_head.layer_vectors(*loading.load_encoder(encoder), texts)
    counts = baselines.tfidf(MAX_FEATURES).fit_transform(texts)

    def answer(learn: np.ndarray, other: np.ndarray) -> np.ndarray:
        head = linear_head.head_history(
            vectors[learn], labels[learn], vectors[other], dropout=0.3, seed=seed
        )[-1]
        with warnings.catch_warnings():  # a class that the other folds lack gets the answer 0
            warnings.filterwarnings("ignore", "Label (not )?.* is present in all training examples")
            linear = baselines.one_vs_rest(C=10.0).fit(counts[learn], labels[learn])
        return (head + linear.predict_proba(counts[other])) / 2

    return linear_head.out_of_fold(answer, labels, n_folds, seed)


def write_suspects(
    data: Labelled,
    probabilities: np.ndarray,
    output: Path | str,
    n: int = 100,
    separator: str = ",",
) -> int:
    """Write the most suspicious rows as a sheet, worst first; returns how many there are.

    Args:
        data: The table.
        probabilities: What `by_model` or `by_folds` gives.
        output: The sheet; see `suspects.write_sheet`.
        n: How many rows at most.
        separator: Stands between columns.

    Raises:
        DataError: The file is there already: somebody may have filled it in.
    """
    check_new(output)
    score = label_errors.margin(data.hot, probabilities)
    found = suspects.suspects(data.rows, data.hot, probabilities, score, data.label_set.names, n)
    suspects.write_sheet(found, output, separator)
    return len(found)


def line_end(file: Path | str) -> str:
    """What ends the lines of a table of text, `\\r\\n` or `\\n`, told by its first line."""
    with own_path(file).open("rb") as opened:
        first = opened.readline().replace(b"\0", b"") + opened.read(1)  # of UTF-16, too
    return "\r\n" if b"\r\n" in first.replace(b"\0", b"") else "\n"


def apply(
    data: Labelled,
    sheet: Path | str,
    output: Path | str,
    separator: str = ",",
    line_end: str = "\n",
) -> dict[str, int]:
    """Write the table with the labels that people have corrected in a sheet; all else stays.

    Args:
        data: The table.
        sheet: The suspects, with corrections.
        output: Gets the corrected table as CSV, quoted where it must be.
        separator: Stands between columns.
        line_end: Stands at the end of each line.

    Returns:
        How many rows were `changed`, `confirmed` and left `open`.

    Raises:
        DataError: See `suspects.read_corrections`; or several labels where each text has one.
    """
    corrected, counts = suspects.read_corrections(sheet, data.rows, data.label_set.names)
    for name, labels in zip(corrected["id"], corrected["labels"], strict=True):
        try:
            data.label_set.check_number(labels)
        except DataError as error:
            raise DataError(f"{sheet}, id {name!r}: {error}") from None
    fields = [
        field if new == old else data.spelled(new)
        for field, old, new in zip(
            data.table[data.column], data.rows["labels"], corrected["labels"], strict=True
        )
    ]
    table = data.table.assign(**{data.column: fields})
    # The csv module leaves a carriage return inside a field without quotes.
    returns = any("\r" in str(field) for field in (*table.columns, *table.to_numpy().ravel()))
    content = table.to_csv(
        index=False,
        quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL,
        lineterminator=line_end,
        sep=separator,
    )
    # With the byte order mark spreadsheets know UTF-8.
    write_whole(own_path(output), ("\ufeff" if separator == ";" else "") + content)
    return counts
