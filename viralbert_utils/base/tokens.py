"""Texts as rows of token ids: encoded, put into batches of like length, padded.

Without torch: a trained and an exported model read a text by the same code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

BATCH_TOKENS = (
    1024  # padding included; what a batch computes then stays in the cache of a processor
)
# WordPiece takes the cube of a word's length, and no word that occurs has more than 100 letters.
# White space and punctuation end a word.
_IN_WORD = "[^ \\t\\n\\r!-/:-@\\[-`{-~¡§«¶·»¿\u2010-\u2027\u2030-\u205e\u3000-\u303f]"
_LONG_WORD = re.compile(f"({_IN_WORD}{{100}})(?={_IN_WORD})")


def encode(
    tokenizer: Any, texts: Sequence[str], max_length: int = 128, head_share: float = 1.0
) -> list[list[int]]:
    """Token ids of each text, special tokens included, no padding.

    Args:
        tokenizer: From `loading.load_encoder`, or a `tokenizers.Tokenizer`.
        texts: Any strings; an empty one gives the special tokens alone. A word of more than 100
            letters is read as several.
        max_length: Longer texts are cut.
        head_share: Which part of the room goes to the beginning of a text that is too long; the
            rest goes to its end, where reviews often have their verdict. 1 keeps the beginning
            only.

    Returns:
        `n_texts` lists of at most `max_length` ids.

    Raises:
        ValueError: `max_length` leaves no room beside the special tokens, or `head_share` is not in
            0 .. 1.
    """
    prefix, suffix = special_ids(tokenizer)
    n_special = len(prefix) + len(suffix)
    room = max_length - n_special
    if not 0 <= head_share <= 1:
        raise ValueError(f"head_share {head_share} is no share; expected 0 to 1")
    if room < 1:
        raise ValueError(
            f"max_length {max_length} leaves no room: {n_special} special tokens belong to every "
            "text"
        )
    head = round(room * head_share)
    cut = (
        [*ids[:head], *ids[len(ids) - (room - head) :]] if len(ids) > room else ids
        for ids in own_ids(tokenizer, texts)
    )
    return [[*prefix, *ids, *suffix] for ids in cut]


def special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What stands before and after the ids of every text."""
    (probe,), (whole,) = (_ids(tokenizer, ["а"], special) for special in (False, True))
    start = next(i for i in range(len(whole)) if whole[i : i + len(probe)] == probe)
    return whole[:start], whole[start + len(probe) :]


def own_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text without special tokens; words of over 100 letters are split."""
    return (
        _ids(tokenizer, [_LONG_WORD.sub(r"\1 ", text) for text in texts], False)
        if len(texts)
        else []
    )


def _ids(tokenizer: Any, texts: list[str], special: bool) -> list[list[int]]:
    if hasattr(tokenizer, "encode_batch"):  # the tokenizers library's own
        if len(texts) == 1:  # a batch wakes threads
            return [tokenizer.encode(texts[0], add_special_tokens=special).ids]
        return [row.ids for row in tokenizer.encode_batch(texts, add_special_tokens=special)]
    return tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and attention mask of a padded batch: two int64 `(n_texts, n_tokens)`."""
    lengths = np.array([len(row) for row in rows])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask.astype(bool)] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return ids, mask


def batches(lengths: Sequence[int], n_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Positions of texts of like length, longest first, at most `n_tokens` a batch."""
    groups: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not groups or (len(groups[-1]) + 1) * lengths[groups[-1][0]] > n_tokens:
            groups.append([])
        groups[-1].append(position)
    return groups
