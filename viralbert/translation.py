"""English to Russian with a Marian model, for those who have only English data.

Lesson 01 says when it is worth it.

Translated texts are kept line by line as they come, so an interrupted run goes on where it stopped.
A text whose translation fails is left out and counted; it never becomes an empty text with labels.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from viralbert_utils.base import devices, hub
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path, write_whole
from viralbert_utils.base.texts import normalise
from viralbert_utils.data.tables import read_table, require_columns

MODEL = "Helsinki-NLP/opus-mt-en-ru"


def load_model(name: str = MODEL) -> tuple[Any, Any]:
    """Load tokenizer and translation model, from the hub or a folder.

    The model is in evaluation mode, on `devices.default`.

    Raises:
        DataError: It cannot be loaded; the message says what to do.
    """
    from transformers import AutoTokenizer, MarianMTModel

    try:
        tokenizer = hub.from_pretrained(AutoTokenizer, name)
        model = hub.from_pretrained(MarianMTModel, name).eval()
    except (OSError, ValueError) as error:
        raise DataError(
            f"translation model {name!r} could not be loaded ({error}); download it on a machine "
            "with network "
            "and give its folder as the model"
        ) from error
    return tokenizer, model.to(devices.default())


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
            batch.
        batch_size: Texts translated at once.
        n_beams: Width of the beam search.
        max_tokens: Longer texts are not translated (a cut text would keep labels of the part that
            is gone).

    Returns:
        A translation for each text, `None` where there is none: empty or too long input, empty
        output.
    """
    import torch

    done = _read_kept(kept)
    limit = int(model.config.max_position_embeddings)
    max_tokens = min(max_tokens, limit)
    open_texts = sorted(
        {text for text in texts if normalise(text) and _key(text) not in done},
        key=lambda t: (len(t), t),
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (
        kept.open("a", encoding="utf-8") as file,
        tqdm(total=len(open_texts), unit="text", desc="translate") as bar,
    ):
        for batch in _batches(open_texts, batch_size):
            translations: dict[str, str | None] = dict.fromkeys(batch)
            fitting = [text for text in batch if len(tokenizer(text)["input_ids"]) <= max_tokens]
            if fitting:
                encoded = tokenizer(fitting, return_tensors="pt", padding=True).to(model.device)
                with torch.inference_mode():
                    generated = model.generate(
                        **encoded,
                        num_beams=n_beams,
                        max_length=None,
                        max_new_tokens=min(2 * max_tokens, limit - 1),
                    )
                decoded = tokenizer.batch_decode(generated, skip_special_tokens=True)
                translations |= {
                    text: (russian.strip() if normalise(russian) else None)
                    for text, russian in zip(fitting, decoded, strict=True)
                }
            for text, russian in translations.items():
                done[_key(text)] = russian
                file.write(
                    json.dumps({"key": _key(text), "ru": russian}, ensure_ascii=False) + "\n"
                )
            file.flush()
            bar.update(len(batch))
    return [done.get(_key(text)) for text in texts]


def translate_file(
    source: str, target: str, column: str = "text", model: str = MODEL, batch_size: int = 32
) -> tuple[int, int]:
    """Translate a column of a table.

    The target gets the same rows, with `ru_text` before the other columns.

    Returns:
        Rows written, and rows left out because they could not be translated.

    Raises:
        DataError: The file or the column is not there, or the model cannot be loaded.
    """
    table = read_table(own_path(source))
    require_columns(table, [column], source)
    texts = [str(text) for text in table[column]]
    memory_file = own_path(f"{target}.translations.jsonl")
    translated = translate(texts, *load_model(model), kept=memory_file, batch_size=batch_size)
    whole = [text is not None for text in translated]
    table.insert(0, "ru_text", translated)
    buffer = io.StringIO()
    table[whole].to_csv(buffer, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    write_whole(own_path(target), buffer.getvalue())
    return sum(whole), len(whole) - sum(whole)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read_kept(path: Path) -> dict[str, str | None]:
    done: dict[str, str | None] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a killed run may be cut; its text is translated again
            done[entry["key"]] = entry["ru"]
        # A cut last line must not swallow the next entry.
        if not path.read_bytes().endswith(b"\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")
    return done


def _batches(items: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
