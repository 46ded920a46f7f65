"""English to Russian with a Marian model, for those who have only English data.

Lesson 01 says when it is worth it.

Translated texts are kept line by line as they come, so an interrupted run goes on where it stopped.
A text whose translation fails is left out and counted; it never becomes an empty text with labels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from viralbert import rewriting
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path, write_whole
from viralbert_utils.data import sources
from viralbert_utils.data.emotions import parse_labels
from viralbert_utils.data.tables import read_table, require_columns

MODEL = "Helsinki-NLP/opus-mt-en-ru"
# Hub sets that come in several forms: the one with a list of labels a text.
CONFIGS = {"google-research-datasets/go_emotions": "simplified", "go_emotions": "simplified"}


def load_model(name: str = MODEL) -> tuple[Any, Any]:
    """Load tokenizer and translation model, see `rewriting.load_model`.

    Raises:
        DataError: It cannot be loaded; the message says what to do.
    """
    return rewriting.load_model(name, "translation")


def translate(
    texts: Sequence[str],
    tokenizer: Any,
    model: Any,
    kept: Path,
    batch_size: int = 32,
    n_beams: int = 4,
    max_tokens: int = 256,
) -> list[str | None]:
    """Translate texts in batches of like length.

    Args:
        texts: English texts; equal ones are translated once.
        tokenizer: The first that `load_model` gives.
        model: The second that `load_model` gives.
        kept: JSONL file of finished translations, read at the start and appended to after each
            batch; those of another model are not used.
        batch_size: Texts translated at once.
        n_beams: Width of the beam search.
        max_tokens: Longer texts are not translated (a cut text would keep labels of the part that
            is gone).

    Returns:
        A translation for each text, `None` where there is none: empty or too long input, empty
        output.
    """
    rewritten = rewriting.rewrite(
        texts, tokenizer, model, kept, batch_size, max_tokens, "translate", num_beams=n_beams
    )
    return [own[0] if own else None for own in rewritten]


def translate_file(
    source: Path | str,
    target: Path | str,
    column: str = "text",
    model: str = MODEL,
    batch_size: int = 32,
) -> tuple[int, int]:
    """Translate a column of a table.

    The target gets the same rows, with `ru_text` before the other columns.

    Returns:
        Rows written, and rows left out because they could not be translated.

    Raises:
        DataError: The file or the column is not there, or the model cannot be loaded.
    """
    table = read_table(own_path(source))
    require_columns(table, [column], str(source), "name the column of the texts with --column")
    return _translate_table(table, own_path(target), column, load_model(model), batch_size)


def translate_hub(
    name: str,
    folder: Path | str,
    model: str = MODEL,
    batch_size: int = 32,
    config: str | None = None,
) -> dict[str, tuple[int, int]]:
    """Fetch an English set of emotions and translate it, split by split.

    The folder gets `emotions/<split>.csv`, with the Russian text before the English one, so it is a
    data folder for the course and for `viralbert train`.

    Args:
        name: A hub name such as `google-research-datasets/go_emotions`, or a folder in the hub's
            format; with `text` and `labels` (ids of the 28 emotions).
        folder: The data folder to write.
        model: See `load_model`.
        batch_size: Texts translated at once.
        config: The form of the set, where it has several; that of `CONFIGS` if not given.

    Returns:
        For each split the rows written, and the rows left out because they could not be translated.

    Raises:
        DataError: Set or model cannot be loaded, or the set has other columns.
    """
    chosen = config or CONFIGS.get(name)
    english = sources.load("emotions", "hub", name, chosen)
    loaded = load_model(model)
    counts = {}
    for split, table in english.splits.items():
        target = own_path(folder) / "emotions" / f"{split}.csv"
        try:
            labels = [str(parse_labels(ids)) for ids in table["labels"]]
        except ValueError as error:
            raise DataError(
                f"{name} [{split}]: expected a list of emotion ids a text, as GoEmotions has it "
                f"({error}); give another form of the set with --config"
            ) from None
        counts[split] = _translate_table(
            table.assign(labels=labels), target, "text", loaded, batch_size
        )
    return counts


def _translate_table(
    table: pd.DataFrame, target: Path, column: str, loaded: tuple[Any, Any], batch_size: int
) -> tuple[int, int]:
    texts = [str(text) for text in table[column]]
    memory_file = target.with_name(f"{target.name}.translations.jsonl")
    translated = translate(texts, *loaded, kept=memory_file, batch_size=batch_size)
    whole = [text is not None for text in translated]
    table = table.drop(columns="ru_text", errors="ignore")
    table.insert(0, "ru_text", pd.Series(translated, table.index, dtype=object))
    buffer = io.StringIO()
    table[whole].to_csv(buffer, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    write_whole(target, buffer.getvalue())
    return sum(whole), len(whole) - sum(whole)
