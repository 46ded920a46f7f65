"""The embedded encoder: a BERT folder built here from `natasha`'s word vectors.

Nothing is downloaded. Navec (Kukushkin 2020) has vectors of 250,000 Russian words; the frequent
ones become whole words of a WordPiece vocabulary, the others give their vectors to the pieces they
are made of, so a misspelt or unseen word still gets a vector. The transformer layers on top were
pretrained once and come with the project (lesson 10, `pretrained/MODEL_CARD.md`); without them they
start as the identity, seeded. Lesson 02 uses the encoder.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from viralbert_utils.base.cache import build_once, cache_folder
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import check_sums, sha256
from viralbert_utils.base.hub import quiet
from viralbert_utils.encoders.recipe import LAYERS, LAYERS_SHA256, Recipe
from viralbert_utils.encoders.vocabulary import load_navec, make_tokenizer, vocabulary_and_vectors


def embedded_folder(recipe: Recipe | None = None) -> Path:
    """The folder of the embedded encoder, built on first use; other processes wait meanwhile.

    Raises:
        DataError: A file of it is damaged, or there is no room for it in the cache folder.
    """
    recipe = recipe or Recipe()
    target = cache_folder() / f"embedded-{recipe.key}"
    if build_once(target, partial(build, recipe), "the embedded encoder (160 MB)"):
        return target
    try:
        check_sums(target)
    except DataError as error:
        raise DataError(
            f"the embedded encoder is damaged: {error}. Delete {target}, it is built again"
        ) from None
    return target


def build(recipe: Recipe, folder: Path) -> None:
    """Write config, tokenizer and weights; the same recipe always gives the same bytes."""
    import torch
    from transformers import BertConfig, BertModel

    words, counts, vectors = load_navec()
    vocabulary, weights = vocabulary_and_vectors(recipe, words, counts, vectors)
    tokenizer = make_tokenizer(vocabulary, recipe.max_length)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=vectors.shape[1],
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=recipe.max_length,
        type_vocab_size=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.copy_(torch.from_numpy(weights))
        for layer in model.encoder.layer:
            # Nothing is added to the residual stream at first, so the untrained encoder passes its
            # word vectors on: training begins at "mean of the vectors" and is stable at rates at
            # which random layers collapse.
            layer.attention.output.dense.weight.zero_()
            layer.output.dense.weight.zero_()
        look_at_neighbours(model, recipe.seed)
    if recipe.pretrained:
        load_layers(model, LAYERS, LAYERS_SHA256)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (folder / "recipe.json").write_text(
        json.dumps(asdict(recipe), indent=1) + "\n", encoding="utf-8"
    )


def look_at_neighbours(
    model: Any, seed: int, offsets: tuple[int, ...] = (-1, 1, -2, 2), length: float = 2.5
) -> None:
    """Let the first heads of each layer attend to the words before and after, from the start.

    A masked model first has to find out that the words next to a gap matter, and from random
    weights that alone takes most of a small budget (lesson 10). Positions are written as points on
    circles of many speeds (Vaswani et al. 2017), in a subspace as wide as a head; turning the
    circles by `d` steps takes position `t` to `t + d`, so a head whose queries are turned and whose
    keys are not leans to what stands `d` tokens away. All of it goes on learning.

    Args:
        model: A BERT whose heads are of even size; changed in place.
        seed: Decides on the subspace.
        offsets: One for each of the first heads; the others start at random.
        length: Length of the position vectors; word vectors are about 6 long.
    """
    import torch

    size = model.config.hidden_size
    width = size // model.config.num_attention_heads
    subspace = torch.linalg.qr(
        torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    )[0][:, :width]
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
                turn = torch.block_diag(
                    *torch.stack([cos, -sin, sin, cos], dim=1).reshape(-1, 2, 2)
                )
                rows = slice(head * width, (head + 1) * width)
                attention.query.weight[rows] = turn @ subspace.T
                attention.key.weight[rows] = subspace.T


def trained_layers(model: Any) -> list[tuple[str, Any]]:
    """Names and parameters that pretraining trains: all but word vectors and the unused pooler."""
    words = model.get_input_embeddings().weight
    return [
        (n, p)
        for n, p in model.named_parameters()
        if p is not words and not n.startswith("pooler.")
    ]


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
        raise DataError(
            f"the pretrained layers {path} are needed, and this {state}: install the project again"
        )
    wanted = {name: parameter.shape for name, parameter in trained_layers(model)}
    tensors = load_file(path)
    if {name: tensor.shape for name, tensor in tensors.items()} != wanted:
        raise DataError(
            f"{path.name} was trained in another shape; use the default shape, or pretrained=False"
        )
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
