"""The classifiers of the course: an encoder, one vector a text, a head; saved as a folder, without pickle.

Lesson 02 builds the pooled classifier.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from viralbert_utils.data import DataError
from viralbert_utils.encoders import load_encoder, pad, pool, pooled_size


class PooledClassifier(nn.Module):
    """Encoder, pooling, centring, normalisation, dropout and one linear layer.

    Args:
        encoder: From `load_encoder`.
        n_classes: Size of the output.
        pooling: See `encoders.pool`.
        dropout: Of the pooled vector.
        train_embeddings: Whether the word vectors train, too. Each step then moves only those whose tokens it has read,
            so a large vocabulary costs little.
        n_queries: Of attention pooling.
        rates: Share of the texts that carry each class `(n_classes,)`; the outputs start there instead of at one half,
            which for rare classes saves the first few hundred steps.
    """

    centre: Tensor

    def __init__(
        self, encoder: Any, n_classes: int, pooling: str = "mean", dropout: float = 0.1, train_embeddings: bool = True,
        n_queries: int = 4, rates: Tensor | None = None,
    ) -> None:  # fmt: skip
        """See the class."""
        super().__init__()
        hidden_size = encoder.config.hidden_size
        size = pooled_size(pooling, hidden_size, n_queries)
        self.encoder = encoder
        self.pooling = pooling
        # Queries of zero weigh all tokens alike: attention begins as the mean.
        attention = "attention" in pooling.split("+")
        self.queries = nn.Parameter(torch.zeros(n_queries, hidden_size)) if attention else None
        # Pooled vectors of different texts are nearly parallel; what they share can be taken away first (`centre_on`).
        self.register_buffer("centre", torch.zeros(size))
        self.norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(size, n_classes)
        if rates is not None:
            with torch.no_grad():
                self.head.bias.copy_(torch.logit(rates.float(), eps=1e-4))
        embeddings = encoder.get_input_embeddings()
        embeddings.weight.requires_grad_(train_embeddings)
        embeddings.sparse = train_embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `(n_texts, n_classes)` of token ids and mask, both `(n_texts, n_tokens)`."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        vectors = pool(hidden, attention_mask, self.pooling, self.queries)
        return self.head(self.dropout(self.norm(vectors - self.centre)))

    def centre_on(self, rows: list[list[int]], pad_id: int) -> None:
        """Take away from every pooled vector what those of training texts have in common (their mean), before training.

        A linear layer at a usual rate needs very many steps to tell vectors apart that differ in the third digit.

        Args:
            rows: Encoded texts, some hundred at least.
            pad_id: Of the tokenizer.

        Raises:
            ValueError: No text, or a single one, which would leave nothing of itself.
        """
        if len(rows) < 2:
            raise ValueError(f"{len(rows)} texts to centre on; give some hundred training texts")
        self.centre.copy_(text_vectors(self.encoder, rows, pad_id, self.pooling, self.queries).mean(dim=0))

    def head_state(self) -> dict[str, Tensor]:
        """Everything outside the encoder."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("encoder.")}


def save_classifier(
    folder: Path | str, model: PooledClassifier, tokenizer: Any, names: list[str], **about: Any
) -> None:
    """Write a classifier as a folder: encoder and tokenizer in transformers' format, head as safetensors, settings.

    Args:
        folder: Replaced as a whole when the new one is complete.
        model: A trained classifier.
        tokenizer: Its tokenizer.
        names: The classes, in the order of the outputs.
        about: Anything else that belongs to the model (max_length, thresholds, data), as plain values.
    """
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        model.encoder.save_pretrained(scratch / "encoder")
        tokenizer.save_pretrained(scratch / "encoder")
        save_file({name: part.contiguous() for name, part in model.head_state().items()}, scratch / "head.safetensors")
        settings = {
            "kind": "pooled", "names": list(names), "pooling": model.pooling, "dropout": model.dropout.p,
            "n_queries": 0 if model.queries is None else len(model.queries),
            "versions": {name: metadata.version(name) for name in ("torch", "transformers")}, **about,
        }  # fmt: skip
        (scratch / "classifier.json").write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")
        scratch.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load_classifier(folder: Path | str) -> tuple[PooledClassifier, Any, dict[str, Any]]:
    """Model in evaluation mode, tokenizer and settings of a folder that `save_classifier` wrote.

    Raises:
        DataError: The folder is none of those, or damaged.
    """
    path = Path(folder)
    if not (path / "classifier.json").is_file():
        raise DataError(f"{path} is no saved classifier: expected classifier.json, encoder/ and head.safetensors there")
    try:
        settings = json.loads((path / "classifier.json").read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path / 'classifier.json'} is damaged ({error}); save the model again") from None
    tokenizer, encoder = load_encoder(str(path / "encoder"))
    model = PooledClassifier(
        encoder, len(settings["names"]), settings["pooling"], settings["dropout"], n_queries=settings["n_queries"]
    )
    try:
        head = load_file(path / "head.safetensors")
        if head.keys() != model.head_state().keys():
            raise ValueError(f"expected {sorted(model.head_state())}, found {sorted(head)}")
        model.load_state_dict(head, strict=False)
    except Exception as error:  # a missing or broken file, or a head of another size
        raise DataError(f"the head in {path} does not fit its settings ({error}); save the model again") from None
    return model.eval(), tokenizer, settings


def predict_logits(model: nn.Module, rows: list[list[int]], pad_id: int, batch_size: int = 128) -> Tensor:
    """Logits of encoded texts in their order `(n_texts, n_classes)`, on the CPU; batches hold texts of like length."""
    return _in_batches(model, model, rows, pad_id, batch_size)


def text_vectors(
    encoder: Any, rows: list[list[int]], pad_id: int, pooling: str = "mean", queries: Tensor | None = None,
    batch_size: int = 128,
) -> Tensor:  # fmt: skip
    """Pooled vectors of an encoder as it stands `(n_texts, size)`, on the CPU; see `encoders.pool`."""

    def step(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return pool(encoder(input_ids=input_ids, attention_mask=attention_mask)[0], attention_mask, pooling, queries)

    return _in_batches(encoder, step, rows, pad_id, batch_size)


@torch.inference_mode()
def _in_batches(
    module: nn.Module, step: Callable[[Tensor, Tensor], Tensor], rows: list[list[int]], pad_id: int, batch_size: int
) -> Tensor:
    training = module.training
    module.eval()
    device = next(module.parameters()).device
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    parts = []
    for start in range(0, len(order), batch_size):
        ids, mask = pad([rows[i] for i in order[start : start + batch_size]], pad_id)
        parts.append(step(ids.to(device), mask.to(device)).float().cpu())
    module.train(training)
    found = torch.cat(parts)
    return found[torch.argsort(torch.tensor(order))]
