"""The embedded encoder: a BERT folder built on this machine from the word vectors that the `natasha` package carries.

Nothing is downloaded. Navec (Kukushkin 2020) has vectors of 250,000 Russian words; the frequent ones become whole
words of a WordPiece vocabulary, the others give their vectors to the pieces they are made of, so a misspelt or unseen
word still gets a vector. The transformer layers on top were pretrained once and come with the project (lesson 10,
`pretrained/MODEL_CARD.md`); without them they start as the identity, seeded. Lesson 02 uses the encoder.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from viralbert_utils.files import SUMS, DataError, check_sums, locked, own_path, sha256, whole_folder, write_sums
from viralbert_utils.hub import quiet
from viralbert_utils.packages import install

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LAYERS = Path(__file__).parent / "pretrained" / "layers.safetensors"
LAYERS_SHA256 = "202102679cd3e3b60d26dc1af96be7da682ba64e268b04c91f3a02c9acbfa9d2"
# Emoji that carry a feeling borrow the vectors of words for it; the others get a vector of their own at random.
EMOJI_WORDS = {
    "😂🤣😆😹": "смех смешно хохот",
    "😊🙂☺😌🥰": "улыбка радость тепло",
    "😍❤💕💖💙💚💛💜🧡♥😘💋": "любовь нежность",
    "😢😭😿🥺💔": "слезы грусть плач",
    "😞😔😟☹😥": "грусть печаль",
    "😡🤬😠👿": "злость гнев ярость",
    "😤🙄😒": "раздражение недовольство",
    "😱😨😰😳": "ужас страх",
    "😮😲🤯😯": "удивление изумление",
    "🤔🧐": "раздумье вопрос",
    "🤢🤮": "отвращение тошнота",
    "🙏": "спасибо благодарность надежда",
    "👍👌✅": "хорошо согласен",
    "👎": "плохо",
    "👏🙌": "браво восхищение",
    "💪": "сила гордость",
    "🎉🥳🎊": "праздник поздравление радость",
    "🔥🚀": "огонь круто восторг",
    "😅😬🙈": "неловко смущение",
    "😴🥱": "сон скука",
    "😎": "круто",
    "🤗": "обнимать забота",
    "🕯": "скорбь память",
    "😏😈": "насмешка",
    "🤷": "непонятно",
    "🤦": "стыд глупость",
}


@dataclass(frozen=True)
class Recipe:
    """What the encoder is built from; another recipe is another folder.

    Attributes:
        n_words: Whole words in the vocabulary, the most frequent of Navec.
        n_pieces: Word beginnings, and as many continuations.
        n_layers: Transformer layers.
        n_heads: Attention heads; must divide 300.
        intermediate: Width of the feed-forward part.
        max_length: Positions.
        seed: Of everything that starts at random.
        version: Raised when the code below changes what it builds.
        pretrained: Take position vectors and layers from the file that comes with the project, which fits the default
            shape only; otherwise layers pass their input on until they are trained, and look
            at neighbours when they begin (`look_at_neighbours`).
    """

    n_words: int = 100_000
    n_pieces: int = 12_000
    n_layers: int = 2
    n_heads: int = 6
    intermediate: int = 1200
    max_length: int = 512
    seed: int = 0
    version: int = 3
    pretrained: bool = True

    @property
    def key(self) -> str:
        """Names the folder: a hash of the recipe, of the word vectors' version and of the pretrained layers."""
        layers = LAYERS_SHA256 if self.pretrained else ""
        parts = json.dumps([asdict(self), metadata.version("natasha"), layers], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:12]


def cache_folder() -> Path:
    """Where built encoders are kept: `$VIRALBERT_CACHE`, or `viralbert` in the user's cache folder."""
    base = os.environ.get("VIRALBERT_CACHE")
    return own_path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "viralbert"


def embedded_folder(recipe: Recipe | None = None) -> Path:
    """The folder of the embedded encoder, built on first use; a second process waits until the first has built it.

    Raises:
        DataError: A file of it is damaged, or there is no room for it in the cache folder.
    """
    recipe = recipe or Recipe()
    target = cache_folder() / f"embedded-{recipe.key}"
    # One without sums was built before there were any.
    if not (target / SUMS).is_file():
        try:
            with locked(cache_folder()):
                if not (target / SUMS).is_file():
                    with whole_folder(target) as new:
                        build(recipe, new)
                        write_sums(new)
        except OSError as error:
            raise DataError(
                f"the embedded encoder (160 MB) cannot be kept in {cache_folder()}: {error}; name another folder in "
                "VIRALBERT_CACHE"
            ) from None
        return target
    try:
        check_sums(target)
    except DataError as error:
        raise DataError(f"the embedded encoder is damaged: {error}. Delete {target}, it is built again") from None
    return target


def load_navec() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Words of Navec in lower case with е for ё, their counts `(n_words,)` and vectors `(n_words, 300)`, centred.

    Raises:
        DataError: The `natasha` package or its word vectors are not installed.
    """
    try:
        from navec import Navec

        folder = Path(str(metadata.distribution("natasha").locate_file("natasha/data/emb")))
        navec = Navec.load(str(next(folder.glob("navec_news*.tar"))))
    except (ImportError, StopIteration, metadata.PackageNotFoundError) as error:
        raise DataError(
            f"the word vectors of the natasha package are missing ({error}): {install('natasha')}"
        ) from None
    vectors = navec.pq.unpack()
    keep: dict[str, list[int]] = {}
    for position, word in enumerate(navec.vocab.words):
        if word not in ("<unk>", "<pad>"):
            keep.setdefault(word.replace("ё", "е"), []).append(position)
    counts = np.asarray(navec.vocab.counts, dtype=np.float64)
    # Both spellings of a word share one entry: their mean, weighted by how often each was seen.
    rows = np.repeat(np.arange(len(keep)), [len(found) for found in keep.values()])
    columns = np.concatenate(list(keep.values()))
    summed = sparse.csr_matrix((counts[columns], (rows, columns)), (len(keep), len(counts)))
    totals = np.asarray(summed.sum(axis=1)).ravel()
    merged = (summed @ vectors) / totals[:, None]
    merged -= np.average(merged, axis=0, weights=np.log1p(totals))
    return list(keep), totals, merged.astype(np.float32)


def build(recipe: Recipe, folder: Path) -> None:
    """Write config, tokenizer and weights of the encoder; the same recipe always gives the same bytes."""
    import torch
    from transformers import BertConfig, BertModel

    words, counts, vectors = load_navec()
    vocabulary, weights = vocabulary_and_vectors(recipe, words, counts, vectors)
    tokenizer = make_tokenizer(vocabulary, recipe.max_length)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=vectors.shape[1], num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads, intermediate_size=recipe.intermediate,
        max_position_embeddings=recipe.max_length, type_vocab_size=2, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.copy_(torch.from_numpy(weights))
        for layer in model.encoder.layer:
            # Nothing is added to the residual stream at first, so the untrained encoder passes its word vectors on:
            # training begins at "mean of the vectors" and is stable at rates at which random layers collapse.
            layer.attention.output.dense.weight.zero_()
            layer.output.dense.weight.zero_()
        look_at_neighbours(model, recipe.seed)
    if recipe.pretrained:
        load_layers(model, LAYERS, LAYERS_SHA256)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n", encoding="utf-8")


def look_at_neighbours(model: Any, seed: int, offsets: tuple[int, ...] = (-1, 1, -2, 2), length: float = 2.5) -> None:
    """Let the first heads of each layer attend to the words before and after, from the start.

    A masked model first has to find out that the words next to a gap matter, and from random weights that alone takes
    most of a small budget (lesson 10). Positions are written as points on circles of many speeds (Vaswani et al. 2017),
    in a subspace as wide as a head; turning the circles by `d` steps takes position `t` to `t + d`, so a head whose
    queries are turned and whose keys are not leans to what stands `d` tokens away. All of it goes on learning.

    Args:
        model: A BERT whose heads are of even size; changed in place.
        seed: Of the subspace.
        offsets: One for each of the first heads; the others start at random.
        length: Of the position vectors; word vectors are about 6 long.
    """
    import torch

    size = model.config.hidden_size
    width = size // model.config.num_attention_heads
    subspace = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)))[0][:, :width]
    speeds = torch.pi / 1.35 ** torch.arange(width // 2)
    angles = torch.arange(model.config.max_position_embeddings)[:, None] * speeds
    points = torch.stack([angles.cos(), angles.sin()], dim=2).flatten(start_dim=1)
    points = points * length / (width // 2) ** 0.5
    with torch.no_grad():
        model.embeddings.position_embeddings.weight.copy_(points @ subspace.T)
        for layer in model.encoder.layer:
            attention = layer.attention.self
            for head, offset in enumerate(offsets[: model.config.num_attention_heads]):
                cos, sin = (speeds * offset).cos(), (speeds * offset).sin()
                turn = torch.block_diag(*torch.stack([cos, -sin, sin, cos], dim=1).reshape(-1, 2, 2))
                rows = slice(head * width, (head + 1) * width)
                attention.query.weight[rows] = turn @ subspace.T
                attention.key.weight[rows] = subspace.T


def trained_layers(model: Any) -> list[tuple[str, Any]]:
    """Names and parameters of all that pretraining trains: not the word vectors, nor the pooler, which nothing uses."""
    words = model.get_input_embeddings().weight
    return [(n, p) for n, p in model.named_parameters() if p is not words and not n.startswith("pooler.")]


def load_layers(model: Any, path: Path, digest: str) -> None:
    """Put pretrained weights in the place of everything but the word vectors.

    Args:
        model: An encoder of the shape that the weights were trained in.
        path: A file that `pretraining.save_layers` wrote, float16.
        digest: Its sha256.

    Raises:
        DataError: The file is missing, is another one, or has other weights than the model.
    """
    from safetensors.torch import load_file

    if not path.is_file() or sha256(path) != digest:
        state = "is another file than expected" if path.is_file() else "is missing"
        raise DataError(f"the pretrained layers {path} are needed, and this {state}: install the project again")
    wanted = {name: parameter.shape for name, parameter in trained_layers(model)}
    found = load_file(path)
    if {name: tensor.shape for name, tensor in found.items()} != wanted:
        raise DataError(f"{path.name} was trained in another shape; use the default shape, or pretrained=False")
    model.load_state_dict({name: tensor.float() for name, tensor in found.items()}, strict=False)


def vocabulary_and_vectors(
    recipe: Recipe, words: list[str], counts: np.ndarray, vectors: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Tokens in order of their ids, and a vector for each `(n_tokens, 300)`."""
    order = np.argsort(-counts, kind="stable")
    frequent = [words[i] for i in order if words[i].isalnum()][: recipe.n_words]
    starts, ends = _pieces(words, recipe.n_pieces)
    signs = _signs()
    vocabulary = list(dict.fromkeys([*SPECIAL, *signs, *frequent, *starts, *ends, *(f"##{sign}" for sign in signs)]))
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
            result[token_id] = shared[token] * (scale / max(float(np.linalg.norm(shared[token])), 1e-6))
    ids = {token: i for i, token in enumerate(vocabulary)}
    for group, description in EMOJI_WORDS.items():
        mean = np.mean([vectors[position[word]] for word in description.split() if word in position], axis=0)
        for token_id in (ids[token] for sign in group for token in (sign, f"##{sign}") if token in ids):
            # Mostly shared, partly its own: related, and still told apart.
            result[token_id] = 0.8 * mean + 0.4 * result[token_id]
    result[0] = 0
    return vocabulary, result


def _signs() -> list[str]:
    """Every single character that the vocabulary knows: letters of the common alphabets, digits, punctuation, emoji."""
    ranges = [(0x21, 0x17F), (0x370, 0x52F), (0x2010, 0x205E), (0x20A0, 0x20BF), (0x2100, 0x214F), (0x2190, 0x2BFF),
              (0x1F000, 0x1FAFF)]  # fmt: skip
    characters = (chr(code) for first, last in ranges for code in range(first, last + 1))
    known = [c for c in characters if unicodedata.category(c)[0] in "LNPS"]
    return list(dict.fromkeys(c.lower() for c in known if len(c.lower()) == 1))


def _pieces(words: list[str], n_pieces: int) -> tuple[list[str], list[str]]:
    """The most useful word beginnings and continuations: common in different words, the longer the better."""
    starts: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for word in words:
        if word.isalpha():
            starts.update(word[:n] for n in range(2, min(8, len(word))))
            ends.update(word[-n:] for n in range(1, min(8, len(word))))

    def best(found: Counter[str]) -> list[str]:
        return sorted((p for p, n in found.items() if n >= 8), key=lambda p: (-found[p] * len(p), p))[:n_pieces]

    return best(starts), [f"##{piece}" for piece in best(ends)]


def _piece_vectors(
    vocabulary: list[str], words: list[str], counts: np.ndarray, vectors: np.ndarray
) -> dict[str, np.ndarray]:
    """For each piece the mean vector of the words that begin or end with it, frequent words counting more (log)."""
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
    """A WordPiece tokenizer of the transformers library: lower case, ё as е, emoji one by one, no word unknown."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(vocabulary)}
    # A word of any length is cut into pieces: the usual limit of 100 characters would make it unknown.
    core = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100_000))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Lowercase(),
            normalizers.Replace("ё", "е"),
            # Joiners, skin tones and presentation marks only modify the emoji before them.
            normalizers.Replace(Regex("[\u200b-\u200f\ufe00-\ufe0f\u2060\u00ad\U0001f3fb-\U0001f3ff]"), ""),
            normalizers.BertNormalizer(
                clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False
            ),
        ]
    )
    emoji = pre_tokenizers.Split(Regex("[\u2190-\u2bff\U0001f000-\U0001faff]"), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([emoji, pre_tokenizers.BertPreTokenizer()])
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )  # fmt: skip
    core.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=max_length, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
