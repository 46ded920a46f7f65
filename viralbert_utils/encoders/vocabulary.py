"""Vocabulary, word vectors and tokenizer of the embedded encoder, from Navec's word vectors.

Lesson 10 says where they come from."""

from __future__ import annotations

import unicodedata
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import sparse

from viralbert_utils.base.errors import DataError
from viralbert_utils.encoders.recipe import Recipe

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def load_navec() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Words of Navec (lower case, е for ё), counts `(n_words,)`, vectors `(n_words, 300)`.

    Raises:
        DataError: The `natasha` package or its word vectors are not installed.
    """
    try:
        from navec import Navec

        folder = Path(str(metadata.distribution("natasha").locate_file("natasha/data/emb")))
        navec = Navec.load(str(next(folder.glob("navec_news*.tar"))))
    except (ImportError, StopIteration, metadata.PackageNotFoundError) as error:
        raise DataError(
            f"the word vectors of the natasha package are missing ({error}): pip install "
            "'viralbert-course'"
        ) from None
    vectors = navec.pq.unpack()
    keep: dict[str, list[int]] = {}
    for position, word in enumerate(navec.vocab.words):
        if word not in ("<unk>", "<pad>"):
            keep.setdefault(word.replace("ё", "е"), []).append(position)
    counts = np.asarray(navec.vocab.counts, dtype=np.float64)
    # Both spellings of a word share one entry: their mean, weighted by how often each was seen.
    rows = np.repeat(np.arange(len(keep)), [len(positions) for positions in keep.values()])
    columns = np.concatenate(list(keep.values()))
    summed = sparse.csr_matrix((counts[columns], (rows, columns)), (len(keep), len(counts)))
    totals = np.asarray(summed.sum(axis=1)).ravel()
    merged = (summed @ vectors) / totals[:, None]
    merged -= np.average(merged, axis=0, weights=np.log1p(totals))
    return list(keep), totals, merged.astype(np.float32)


def vocabulary_and_vectors(
    recipe: Recipe, words: list[str], counts: np.ndarray, vectors: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Tokens in order of their ids, and a vector for each `(n_tokens, 300)`."""
    order = np.argsort(-counts, kind="stable")
    frequent = [words[i] for i in order if words[i].isalnum()][: recipe.n_words]
    starts, ends = _pieces(words, recipe.n_pieces)
    signs = _signs()
    vocabulary = list(
        dict.fromkeys(
            [*SPECIAL, *signs, *frequent, *starts, *ends, *(f"##{sign}" for sign in signs)]
        )
    )
    position = {word: i for i, word in enumerate(words)}
    scale = float(np.median(np.linalg.norm(vectors, axis=1)))
    rng = np.random.default_rng(recipe.seed)
    result = rng.standard_normal((len(vocabulary), vectors.shape[1])).astype(np.float32)
    result *= scale / np.sqrt(vectors.shape[1])
    shared = _piece_vectors(vocabulary, words, counts, vectors)
    for token_id, token in enumerate(vocabulary):
        if token in position:
            result[token_id] = vectors[position[token]]
        elif token in shared:
            # The mean of many words is short; its direction is what it says.
            result[token_id] = shared[token] * (
                scale / max(float(np.linalg.norm(shared[token])), 1e-6)
            )
    ids = {token: i for i, token in enumerate(vocabulary)}
    # Emoji that carry a feeling borrow the vectors of words for it; the others stay random.
    emoji_words = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    for group, description in emoji_words.items():
        mean = np.mean(
            [vectors[position[word]] for word in description.split() if word in position], axis=0
        )
        for token_id in (
            ids[token] for sign in group for token in (sign, f"##{sign}") if token in ids
        ):
            # Mostly shared, partly its own: related, and still told apart.
            result[token_id] = 0.8 * mean + 0.4 * result[token_id]
    result[0] = 0
    return vocabulary, result


def _signs() -> list[str]:
    """Every single character of the vocabulary: letters, digits, punctuation, emoji."""
    ranges = [
        (0x21, 0x17F),
        (0x370, 0x52F),
        (0x2010, 0x205E),
        (0x20A0, 0x20BF),
        (0x2100, 0x214F),
        (0x2190, 0x2BFF),
        (0x1F000, 0x1FAFF),
    ]
    characters = (chr(code) for first, last in ranges for code in range(first, last + 1))
    known = [c for c in characters if unicodedata.category(c)[0] in "LNPS"]
    return list(dict.fromkeys(c.lower() for c in known if len(c.lower()) == 1))


def _pieces(words: list[str], n_pieces: int) -> tuple[list[str], list[str]]:
    """The most useful word beginnings and endings: common in many words, and long."""
    starts: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for word in words:
        if word.isalpha():
            starts.update(word[:n] for n in range(2, min(8, len(word))))
            ends.update(word[-n:] for n in range(1, min(8, len(word))))

    def best(counts: Counter[str]) -> list[str]:
        return sorted(
            (p for p, n in counts.items() if n >= 8), key=lambda p: (-counts[p] * len(p), p)
        )[:n_pieces]

    return best(starts), [f"##{piece}" for piece in best(ends)]


def _piece_vectors(
    vocabulary: list[str], words: list[str], counts: np.ndarray, vectors: np.ndarray
) -> dict[str, np.ndarray]:
    """For each piece the mean vector of the words with it, weighted by the log of their counts."""
    ids = {token: i for i, token in enumerate(vocabulary)}
    rows, columns = [], []
    for column, word in enumerate(words):
        for n in range(1, min(8, len(word))):
            for piece in (word[:n], f"##{word[-n:]}"):
                if piece in ids:
                    rows.append(ids[piece])
                    columns.append(column)
    weights = np.log1p(counts)[columns]
    matrix = sparse.csr_matrix((weights, (rows, columns)), (len(vocabulary), len(words)))
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    means = (matrix @ vectors) / np.maximum(totals, 1e-9)[:, None]
    return {vocabulary[i]: means[i] for i in np.flatnonzero(totals)}


def make_tokenizer(vocabulary: list[str], max_length: int) -> Any:
    """A WordPiece tokenizer: lower case, ё as е, emoji one by one, no word unknown."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(vocabulary)}
    # A word of any length is cut into pieces: the usual limit of 100 characters would make it
    # unknown.
    core = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100_000))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Lowercase(),
            normalizers.Replace("ё", "е"),
            # Joiners, skin tones and presentation marks only modify the emoji before them.
            normalizers.Replace(
                Regex("[\u200b-\u200f\ufe00-\ufe0f\u2060\u00ad\U0001f3fb-\U0001f3ff]"), ""
            ),
            normalizers.BertNormalizer(
                clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False
            ),
        ]
    )
    emoji = pre_tokenizers.Split(Regex("[\u2190-\u2bff\U0001f000-\U0001faff]"), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([emoji, pre_tokenizers.BertPreTokenizer()])
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    core.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    )
