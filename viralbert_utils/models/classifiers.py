"""The classifiers of the course: an encoder, one vector a text, and a head.

Lesson 02 builds the pooled classifier, lesson 03 the one for two tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from viralbert_utils.base import devices
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.emotions import EMOTIONS
from viralbert_utils.encoders.loading import mask_for
from viralbert_utils.encoders.pooling import pool, pooled_size
from viralbert_utils.models.inference import text_vectors


@dataclass(frozen=True)
class Head:
    """A task's layers on the text's vector: hidden ones with ReLU and dropout, then outputs.

    Attributes:
        names: The classes, in the order of the outputs.
        hidden: Widths of the hidden layers.
        dropout: After each of them.
    """

    names: tuple[str, ...]
    hidden: tuple[int, ...] = ()
    dropout: tuple[float, ...] = ()

    def build(self, size: int) -> nn.Sequential:
        """The layers, for vectors of `size` numbers."""
        parts: list[nn.Module] = []
        for width, share in zip(self.hidden, self.dropout, strict=True):
            parts += [nn.Linear(size, width), nn.ReLU(), nn.Dropout(share)]
            size = width
        return nn.Sequential(*parts, nn.Linear(size, len(self.names)))


def viralbert_heads(hidden_size: int) -> dict[str, Head]:
    """ViralBERT v2's heads, 768-256-128-1 and 768-256-28, in the encoder's proportions."""
    third, sixth = hidden_size // 3, hidden_size // 6
    return {
        "virality": Head(("viral",), (third, sixth), (0.3, 0.2)),
        "emotions": Head(EMOTIONS, (third,), (0.3,)),
    }


class _TextVector(nn.Module):
    """Encoder, pooling, centring, normalisation and dropout: what the classifiers share.

    Args:
        encoder: From `load_encoder`.
        pooling: See `pooling.pool`.
        dropout: Share of the pooled vector's numbers that a training step leaves out.
        train_embeddings: Whether the word vectors train, too. Each step then moves only those whose
            tokens it has read, so a large vocabulary costs little.
        n_queries: Queries of attention pooling.
    """

    centre: Tensor

    def __init__(
        self,
        encoder: Any,
        pooling: str = "mean",
        dropout: float = 0.1,
        train_embeddings: bool = True,
        n_queries: int = 4,
    ) -> None:
        super().__init__()
        hidden_size = encoder.config.hidden_size
        self.size = pooled_size(pooling, hidden_size, n_queries)
        self.encoder = encoder
        self.pooling = pooling
        self.train_embeddings = train_embeddings
        # Queries of zero weigh all tokens alike: attention begins as the mean.
        attention = "attention" in pooling.split("+")
        self.queries = nn.Parameter(torch.zeros(n_queries, hidden_size)) if attention else None
        # Pooled vectors of different texts are nearly parallel; what they share can be taken away
        # first (`centre_on`).
        self.register_buffer("centre", torch.zeros(self.size))
        self.norm = nn.LayerNorm(self.size)
        self.dropout = nn.Dropout(dropout)
        self.to(devices.of(encoder))
        embeddings = encoder.get_input_embeddings()
        embeddings.weight.requires_grad_(train_embeddings)
        embeddings.sparse = train_embeddings

    def vectors(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One vector a text `(n_texts, size)`."""
        seen = mask_for(self.encoder, attention_mask)
        hidden = self.encoder(input_ids=input_ids, attention_mask=seen).last_hidden_state
        pooled = pool(hidden, attention_mask, self.pooling, self.queries)
        return self.dropout(self.norm(pooled - self.centre))

    def centre_on(self, rows: list[list[int]], pad_id: int) -> None:
        """Take away from pooled vectors what those of training texts share, before training.

        A linear layer at a usual rate needs very many steps to tell vectors apart that differ in
        the third digit.

        Args:
            rows: Encoded texts, some hundred at least.
            pad_id: The tokenizer's id of padding.

        Raises:
            ValueError: No text, or a single one, which would leave nothing of itself.
        """
        if len(rows) < 2:
            raise DataError(f"{len(rows)} texts to centre on; give some hundred training texts")
        self.centre.copy_(
            text_vectors(self.encoder, rows, pad_id, self.pooling, self.queries).mean(dim=0)
        )

    def head_state(self) -> dict[str, Tensor]:
        """Everything outside the encoder."""
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith("encoder.")
        }


class PooledClassifier(_TextVector):
    """Encoder, one vector a text, one linear layer.

    Args:
        encoder: From `load_encoder`.
        n_classes: Size of the output.
        pooling: See `pooling.pool`.
        rates: Share of the texts that carry each class `(n_classes,)`; the outputs start there
            instead of at one half, which for rare classes saves the first few hundred steps.
        dropout: Share of the pooled vector's numbers that a training step leaves out.
        options: `train_embeddings` (whether the word vectors train, too) and `n_queries` (of
            attention pooling).
    """

    def __init__(
        self,
        encoder: Any,
        n_classes: int,
        pooling: str = "mean",
        dropout: float = 0.1,
        rates: Tensor | None = None,
        **options: Any,
    ) -> None:
        """See the class."""
        super().__init__(encoder, pooling, dropout, **options)
        self.head = nn.Linear(self.size, n_classes).to(devices.of(encoder))
        if rates is not None:
            _start_at(self.head, rates)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `(n_texts, n_classes)` of token ids and mask, both `(n_texts, n_tokens)`."""
        return self.head(self.vectors(input_ids, attention_mask))


class MultiTaskClassifier(_TextVector):
    """One encoder, one vector a text, a head for each task.

    Args:
        encoder: From `load_encoder`.
        heads: Task -> head, e.g. `viralbert_heads(encoder.config.hidden_size)`.
        pooling: See `pooling.pool`; ViralBERT v2 takes `cls`.
        rates: Task -> share of the texts that carry each class, where the outputs start.
        dropout: Share of the pooled vector's numbers that a training step leaves out.
        options: `train_embeddings` and `n_queries`, as in `PooledClassifier`.
    """

    def __init__(
        self,
        encoder: Any,
        heads: Mapping[str, Head],
        pooling: str = "cls",
        dropout: float = 0.1,
        rates: Mapping[str, Tensor] | None = None,
        **options: Any,
    ) -> None:
        """See the class."""
        super().__init__(encoder, pooling, dropout, **options)
        self.tasks = dict(heads)
        layers = {task: head.build(self.size) for task, head in heads.items()}
        for task, shares in (rates or {}).items():
            _start_at(layers[task][-1], shares)
        self.heads = nn.ModuleDict(layers).to(devices.of(encoder))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, task: str | None = None) -> Tensor:
        """Logits `(n_texts, n_classes)` of one task, or of all side by side as in `tasks`."""
        vectors = self.vectors(input_ids, attention_mask)
        names = self.tasks if task is None else [task]
        return torch.cat([self.heads[name](vectors) for name in names], dim=1)

    def by_task(self, logits: Tensor) -> dict[str, Tensor]:
        """Logits of all tasks side by side as a table a task."""
        parts = logits.split([len(head.names) for head in self.tasks.values()], dim=1)
        return dict(zip(self.tasks, parts, strict=True))


def _start_at(layer: Any, rates: Tensor) -> None:
    with torch.no_grad():
        layer.bias.copy_(torch.logit(rates.float(), eps=1e-4))
