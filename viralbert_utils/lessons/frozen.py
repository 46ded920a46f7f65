"""Frozen layers: which part of an encoder trains, and what the frozen part gives, computed once.

Layers that do not learn, with their dropout off, give the same vectors for a text in every epoch.
So the first epoch could be the last that computes them: they are written to a file, and training
starts from there. Lesson 03 measures what that is worth. ViralBERT v2 freezes its encoder for two
epochs, then trains the top two layers.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from viralbert_utils.base import devices
from viralbert_utils.base.files import locked, remove_unfinished, whole_file
from viralbert_utils.encoders.loading import mask_for
from viralbert_utils.encoders.pooling import pool


class Cached:
    """Texts as the vectors that the first trainable layer reads; in the place of
    `settings.Encoded`."""

    def __init__(self, vectors: np.ndarray, texts: Any, pooled: bool) -> None:
        """What `cache` found.

        Args:
            vectors: `(n_tokens of all texts, size)`, any float type; `(n_texts, size)` if pooled.
            texts: The `settings.Encoded` they come from, whose lengths order the batches.
            pooled: Whether there is one vector a text.
        """
        self.vectors = vectors
        self.lengths, self.labels, self.digest = texts.lengths, texts.labels, texts.digest
        self.n_kept = [1] * len(texts) if pooled else texts.lengths
        self.starts = np.concatenate([[0], np.cumsum(self.n_kept)])

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.lengths)

    def batch(self, positions: Sequence[int], pad_id: int = 0) -> tuple[Tensor, Tensor]:
        """Vectors `(n_texts, n_kept, size)`, float32, zeros as padding, and the mask `(n_texts,
        n_kept)`."""
        longest = max(self.n_kept[p] for p in positions)
        vectors = np.zeros(
            (len(positions), longest, self.vectors.shape[1]), dtype=self.vectors.dtype
        )
        mask = torch.zeros((len(positions), longest), dtype=torch.long)
        for row, p in enumerate(positions):
            vectors[row, : self.n_kept[p]] = self.vectors[self.starts[p] : self.starts[p + 1]]
            mask[row, : self.n_kept[p]] = 1
        return torch.from_numpy(vectors).float(), mask


class Upper(nn.Module):
    """The top layers of an encoder, which read vectors in the place of token ids."""

    def __init__(self, body: Any) -> None:
        """`body` is a shallow copy of the encoder that keeps its top layers only."""
        super().__init__()
        self.body = body
        self.config = body.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """What the layers make of vectors; called like an encoder, so the vectors `(n_texts,
        n_tokens, size)` of `Cached` texts stand in the place of token ids."""
        return self.body(inputs_embeds=input_ids, attention_mask=attention_mask)


class _PassOn(nn.Module):
    def forward(self, *given: Any, **named: Any) -> Tensor:
        # DistilBERT gives its embeddings by position, the others by name.
        vectors = [part for part in (named.get("inputs_embeds"), *given) if part is not None]
        return vectors[0]


def layers_of(encoder: Any) -> nn.ModuleList:
    """The transformer layers of an encoder, lowest first.

    Raises:
        ValueError: A model that does not keep them where BERT, RoBERTa, ELECTRA and DistilBERT do.
    """
    body = getattr(encoder, "encoder", None) or getattr(encoder, "transformer", None)
    layers = getattr(body, "layer", None)
    if not isinstance(layers, nn.ModuleList) or not hasattr(encoder, "embeddings"):
        raise ValueError(
            f"{type(encoder).__name__} has no `embeddings` and `encoder.layer`, so its layers "
            "cannot be frozen by number; train it whole (top_layers=None)"
        )
    return layers


def freeze(model: nn.Module, top_layers: int | None) -> None:
    """Let only the top layers of `model.encoder` learn.

    Args:
        model: A classifier of `models`.
        top_layers: How many; 0 freezes the encoder, `None` frees it (word vectors as the model was
            told).

    Raises:
        ValueError: More layers than there are.
    """
    encoder: Any = model.encoder
    if top_layers is None:
        encoder.requires_grad_(True)
        encoder.get_input_embeddings().weight.requires_grad_(bool(model.train_embeddings))
        return
    layers = layers_of(encoder)
    if not 0 <= top_layers <= len(layers):
        raise ValueError(f"top_layers is {top_layers}; the encoder has {len(layers)} layers")
    encoder.requires_grad_(False)
    for layer in list(layers)[len(layers) - top_layers :]:
        layer.requires_grad_(True)


def split_encoder(encoder: Any, top_layers: int) -> tuple[Any, Upper]:
    """The encoder below its top layers, and the top layers alone; both share their weights with the
    encoder."""
    layers = list(layers_of(encoder))
    cut = len(layers) - top_layers
    return _with_layers(encoder, layers[:cut]), Upper(
        _with_layers(encoder, layers[cut:], _PassOn())
    )


def _with_layers(encoder: Any, layers: list[nn.Module], embeddings: nn.Module | None = None) -> Any:
    encoder_copy = _shallow(encoder)
    name = "encoder" if hasattr(encoder, "encoder") else "transformer"
    body = _shallow(getattr(encoder, name))
    body._modules["layer"] = nn.ModuleList(layers)
    encoder_copy._modules[name] = body
    if embeddings is not None:
        encoder_copy._modules["embeddings"] = embeddings
    return encoder_copy


def _shallow(module: nn.Module) -> Any:
    """A copy with its own table of parts, so that parts can be exchanged without touching the
    original."""
    module_copy = copy.copy(module)
    module_copy._modules = dict(module._modules)
    return module_copy


def upper_classifier(model: nn.Module, top_layers: int) -> Any:
    """The same classifier, sharing all weights, for `Cached` texts: its encoder is the top layers
    alone."""
    classifier = _shallow(model)
    classifier._modules["encoder"] = split_encoder(model.encoder, top_layers)[1]
    return classifier


@torch.inference_mode()
def cache(
    model: nn.Module,
    texts: Any,
    top_layers: int,
    folder: Path,
    pad_id: int = 0,
    limit_gib: float = 8.0,
    batch_size: int = 128,
    weights: str = "",
    precision: str = "auto",
) -> Cached:
    """What the layers below the top ones give for each text, as a float16 file that is read in
    place.

    With the encoder wholly frozen and one vector a text (`cls`, `mean`, `max`), that vector is all
    that is kept.

    Args:
        model: A classifier of `models`.
        texts: `settings.Encoded`.
        top_layers: Layers that train.
        folder: Gets the file, named by what it was computed from: the same texts and weights are
            not computed again.
        pad_id: The tokenizer's id of padding.
        limit_gib: Largest file that may be written.
        batch_size: Texts at once.
        weights: `digest` of the layers below, where it is known already.
        precision: See `devices.precision`.

    Raises:
        ValueError: The file would be larger than the limit.
    """
    pooling = str(model.pooling)
    pooled = not top_layers and pooling in ("cls", "mean", "max")
    encoder: Any = model.encoder
    shape = (len(texts) if pooled else sum(texts.lengths), encoder.config.hidden_size)
    needed = 2 * shape[0] * shape[1] / 2**30
    if needed > limit_gib:
        raise ValueError(
            f"the cache of {len(texts)} texts would take {needed:.1f} GiB, the limit is "
            f"{limit_gib:g}; raise it, train with fewer texts, or without a cache"
        )
    lower = split_encoder(encoder, top_layers)[0].eval()
    dtype = devices.precision(devices.of(model), precision)
    key = [
        texts.digest,
        weights or digest(model, top_layers),
        pooling if pooled else "",
        str(dtype),
    ]
    path = folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.npy"
    with locked(path):
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(folder, path.name)
            with whole_file(path) as temporary:
                vectors = np.lib.format.open_memmap(
                    temporary, mode="w+", dtype=np.float16, shape=shape
                )
                store = Cached(vectors, texts, pooled)
                _fill(store, lower, texts, pooling if pooled else "", pad_id, batch_size, dtype)
                vectors.flush()
    return Cached(np.load(path, mmap_mode="r"), texts, pooled)


def _fill(
    store: Cached,
    lower: Any,
    texts: Any,
    pooling: str,
    pad_id: int,
    batch_size: int,
    dtype: torch.dtype,
) -> None:
    device = devices.of(lower)
    order = sorted(range(len(texts)), key=lambda p: texts.lengths[p])
    plan = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    prepared = devices.ahead(
        (partial(texts.batch, positions, pad_id) for positions in plan), device
    )
    for positions, (ids, mask) in zip(plan, prepared, strict=True):
        with devices.computing(device, dtype):
            hidden = lower(input_ids=ids, attention_mask=mask_for(lower, mask)).last_hidden_state
            if pooling:
                hidden = pool(hidden, mask, pooling).unsqueeze(1)
        values = hidden.half().cpu().numpy()
        for row, p in enumerate(positions):
            store.vectors[store.starts[p] : store.starts[p + 1]] = values[row, : store.n_kept[p]]


def digest(model: nn.Module, top_layers: int) -> str:
    """Tells the weights below the top layers apart; quick, and no protection against anybody who
    means harm."""
    lower = split_encoder(model.encoder, top_layers)[0]
    # Nothing here reads BERT's pooler; where a folder has none, each loading draws it anew.
    used = [
        (name, p.detach().cpu())
        for name, p in lower.named_parameters()
        if not name.startswith("pooler.")
    ]
    parts = [[name, list(p.shape), str(torch.hash_tensor(p).item())] for name, p in used]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
