"""Text and table in one model: an encoder for the texts, dense layers for the columns, joined for
the classes.

Lesson 07 asks whether the columns help the text. Sources: Gorishniy et al. 2022, arXiv 2203.05556
(numbers as bins, so that dense layers can tell a peak from a slope); Arora et al. 2017, "A simple
but tough-to-beat baseline for sentence embeddings" (rare words weigh more, what all texts share is
taken away).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from viralbert_utils.base import devices
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import EXPORTED, check_sums, own_path
from viralbert_utils.base.tokens import encode
from viralbert_utils.data.tables import require_columns, require_rows, require_table
from viralbert_utils.encoders.loading import load_encoder, mask_for, pad
from viralbert_utils.evaluation.metrics import macro_f1, one_hot
from viralbert_utils.lessons import frozen
from viralbert_utils.lessons.columns import Preparation, empty
from viralbert_utils.models import checks, inference, storage
from viralbert_utils.models.classifiers import PooledClassifier
from viralbert_utils.training import loop
from viralbert_utils.training.losses import cross_entropy
from viralbert_utils.training.settings import Encoded, Settings, Task


def set_aside(
    rows: pd.DataFrame, label: str, fields: Sequence[str], min_rows: int = 5, max_empty: int = 3
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows a classifier can learn from and be judged by, and those it cannot.

    Args:
        rows: With the label and the fields as columns.
        label: Column of the class.
        fields: Columns whose emptiness counts.
        min_rows: A class with fewer rows, of those that are left, is set aside.
        max_empty: A row with more empty fields is set aside first.

    Returns:
        The rows kept, and the rows set aside with their `reason`: `too many empty fields` or `rare
        class`.

    Raises:
        DataError: A column is missing.
    """
    require_columns(rows, [label, *fields])
    reason = pd.Series("", rows.index)
    reason[empty(rows[list(fields)]).sum(axis=1) > max_empty] = "too many empty fields"
    n_rows = rows.loc[reason == "", label].value_counts()
    reason[(reason == "") & ~rows[label].isin(n_rows.index[n_rows >= min_rows])] = "rare class"
    return rows[reason == ""], rows.assign(reason=reason)[reason != ""]


class Inputs(NamedTuple):
    """What the hybrid reads of a batch.

    Attributes:
        ids: Token ids `(n_rows, n_tokens)`.
        columns: `(n_rows, n_columns)`.
    """

    ids: Tensor
    columns: Tensor


class PooledInputs(NamedTuple):
    """What the hybrid reads of a batch whose texts an encoder that does not learn has read before.

    Attributes:
        vectors: One a text `(n_rows, size)`, see `HybridClassifier.pooled`.
        columns: `(n_rows, n_columns)`.
    """

    vectors: Tensor
    columns: Tensor


@dataclass(frozen=True)
class EncodedRows(Encoded):
    """Texts with the columns of their rows, for `loop.fit`; with pooled vectors if they stay
    the same."""

    columns: Tensor
    pooled: Tensor | None = None

    @cached_property
    def digest(self) -> str:
        """Hash of texts, labels and columns."""
        return hashlib.sha256(super().digest.encode() + self.columns.numpy().tobytes()).hexdigest()

    def batch(self, positions: Sequence[int], pad_id: int) -> tuple[Any, Tensor]:
        """`Inputs` (or `PooledInputs`) and attention mask of the rows at some positions."""
        columns = self.columns[list(positions)]
        if self.pooled is not None:
            vectors = self.pooled[list(positions)]
            return PooledInputs(vectors, columns), torch.ones(len(columns), 1)
        ids, mask = super().batch(positions, pad_id)
        return Inputs(ids, columns), mask


class HybridClassifier(PooledClassifier):
    """Encoder and pooling for the text, dense layers for the columns, one linear layer over both.

    The text's vector is the mean of its token vectors, weighted by how few training texts have the
    token: of a title with a hero's name, the name is what tells. `learn_words` sets the weights.

    Args:
        encoder: From `load_encoder` or `first_layers`.
        n_classes: Size of the output.
        n_columns: Width of `Preparation.columns`; 0 leaves the text alone.
        hidden: Width of the dense layers.
        dropout: For the text's vector and for the dense layers.
        top_layers: Layers of the encoder that train, see `frozen.freeze`; word vectors do not.
    """

    token_weights: Tensor

    def __init__(
        self,
        encoder: Any,
        n_classes: int,
        n_columns: int,
        hidden: int = 32,
        dropout: float = 0.3,
        top_layers: int | None = 0,
    ) -> None:
        """See the class."""
        super().__init__(encoder, n_classes, "mean", dropout, train_embeddings=False)
        self.shape = {"n_columns": n_columns, "hidden": hidden}
        parts = (nn.Linear(n_columns, hidden), nn.ReLU(), nn.Dropout(dropout)) if n_columns else ()
        self.dense = nn.Sequential(*parts)
        self.head = nn.Linear(self.size + (hidden if n_columns else 0), n_classes)
        self.register_buffer("token_weights", torch.ones(encoder.config.vocab_size))
        self.to(devices.of(encoder))
        frozen.freeze(self, top_layers)

    def learn_words(self, rows: list[list[int]], pad_id: int) -> None:
        """Weights of the tokens from encoded training texts (what all of them have, weighs
        nothing), and the centre."""
        seen = torch.tensor([token for row in rows for token in {*row}])
        n_texts = torch.bincount(seen, minlength=len(self.token_weights))
        self.token_weights.copy_(torch.log((len(rows) + 1) / (n_texts + 1)))
        self.centre.copy_(self.pooled(rows, pad_id).mean(dim=0))

    @torch.inference_mode()
    def pooled(self, rows: list[list[int]], pad_id: int) -> Tensor:
        """Vectors of encoded texts before centring and normalisation `(n_texts, size)`, on the
        CPU."""
        device = devices.of(self)
        prepare = (
            partial(pad, rows[start : start + 128], pad_id) for start in range(0, len(rows), 128)
        )
        with devices.computing(device, devices.precision(device)):
            return torch.cat(
                [self._pool(*batch).float() for batch in devices.ahead(prepare, device)]
            ).cpu()

    def _pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        seen = mask_for(self.encoder, attention_mask)
        hidden = self.encoder(input_ids=input_ids, attention_mask=seen).last_hidden_state
        weights = (self.token_weights[input_ids] * attention_mask).unsqueeze(-1)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)

    def forward(self, inputs: Any, attention_mask: Tensor) -> Tensor:
        """Logits `(n_rows, n_classes)` of `Inputs`, or a pair like them, and mask `(n_rows,
        n_tokens)`; of `PooledInputs`, the mask is not looked at."""
        text, columns = inputs
        pooled = text if isinstance(inputs, PooledInputs) else self._pool(text, attention_mask)
        vectors = self.dropout(self.norm(pooled - self.centre))
        return self.head(torch.cat([vectors, self.dense(columns)], dim=1))


def first_layers(encoder: Any, n_layers: int) -> Any:
    """An encoder's word vectors and lowest layers as an encoder of its own, which shares their
    weights."""
    lower = frozen.split_encoder(encoder, len(frozen.layers_of(encoder)) - n_layers)[0]
    lower.config = copy.deepcopy(encoder.config)
    lower.config.num_hidden_layers = n_layers
    return lower


@dataclass(frozen=True)
class Hybrid:
    """A trained hybrid with all it needs to read rows.

    Attributes:
        model: In evaluation mode.
        tokenizer: The tokenizer of its encoder.
        preparation: Learnt from the training rows.
        classes: In the order of the outputs.
        max_length: Tokens kept of a text.
    """

    model: HybridClassifier
    tokenizer: Any
    preparation: Preparation
    classes: list[str]
    max_length: int

    def probabilities(self, rows: pd.DataFrame) -> np.ndarray:
        """`(n_rows, n_classes)`, each row adding up to 1.

        Raises:
            DataError: A column that the preparation reads is missing.
        """
        require_columns(rows, self.preparation.names)
        require_rows(rows)
        encoded = _encoded(rows, self.preparation, self.tokenizer, self.max_length)
        return (
            inference.predict_logits(self.model, encoded, self.tokenizer.pad_token_id)
            .softmax(dim=1)
            .numpy()
        )

    def predict(
        self, rows: pd.DataFrame, label: str = "label"
    ) -> tuple[pd.DataFrame, dict[str, float]]:
        """Answers for rows with or without labels.

        Args:
            rows: With the columns that the preparation reads.
            label: Column that holds the class where it is known; it may be missing, as a whole or
                in some rows.

        Returns:
            A row each with `answer` and `certainty` (its probability); and, over the rows with a
            known class, `rows`, `accuracy` and `macro_f1`, or nothing where there are none.

        Raises:
            DataError: A column that the preparation reads is missing.
        """
        probabilities = self.probabilities(rows)
        answers = pd.DataFrame(
            {
                "answer": np.array(self.classes)[probabilities.argmax(axis=1)],
                "certainty": probabilities.max(axis=1),
            },
            index=rows.index,
        )
        return answers, figures(rows, answers["answer"], self.classes, label)

    def save(self, folder: Path | str) -> None:
        """Write model, tokenizer and preparation as one folder, whole or not at all, without
        pickle."""
        storage.save_classifier(
            folder,
            self.model,
            self.tokenizer,
            self.classes,
            kind="hybrid",
            shape=self.model.shape,
            preparation=asdict(self.preparation),
            max_length=self.max_length,
        )

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str | None = None) -> Hybrid:
        """What `save` wrote.

        Args:
            folder: The folder that `save` was given.
            device: Where the model is put; `devices.default` if not given.

        Raises:
            DataError: The folder is none of those, or damaged.
        """
        path, device = own_path(folder), torch.device(device) if device else devices.default()
        if (path / EXPORTED).is_file():
            raise DataError(
                f"{path} is an exported hybrid already: expected one that `save` wrote; give the "
                "folder that it was made from, or read it with OnnxModel.load, whose logits(texts, "
                "columns) take the table"
            )
        try:
            settings = json.loads((path / "classifier.json").read_text(encoding="utf-8"))
            if settings["kind"] != "hybrid":
                raise ValueError(f"it holds a classifier of the kind {settings['kind']!r}")
            checks.check_settings(settings, path / "classifier.json", ["hybrid"])
            check_sums(path)
            checks.check_layers(path / "encoder" / "config.json")
            tokenizer, encoder = load_encoder(str(path / "encoder"), device)
            checks.check_length(settings, encoder, path)
            model = HybridClassifier(
                encoder, len(settings["names"]), **settings["shape"], dropout=settings["dropout"]
            )
            head = load_file(path / "head.safetensors")
            if head.keys() != model.head_state().keys():
                raise ValueError(f"expected {sorted(model.head_state())}, found {sorted(head)}")
            model.load_state_dict(head, strict=False)
            preparation = Preparation.from_plain(settings["preparation"])
            hybrid = cls(
                model.eval(), tokenizer, preparation, settings["names"], settings["max_length"]
            )
            hybrid.probabilities(
                pd.DataFrame({name: [None] for name in preparation.names})
            )  # does all fit together?
        except Exception as error:  # a missing or broken file, another kind of model: one remedy
            raise DataError(
                f"{path} is no saved hybrid, or a damaged one ({error}); save it again"
            ) from error
        return hybrid


def figures(
    rows: pd.DataFrame, answers: pd.Series, classes: Sequence[str], label: str = "label"
) -> dict[str, float]:
    """How good answers are, over the rows whose class is known.

    Args:
        rows: With or without the column of the class.
        answers: One a row, in the order of the rows.
        classes: Those that the model knows; a row of another class does not count.
        label: Column of the class.

    Returns:
        `rows`, `accuracy` and `macro_f1`, or nothing where no class is known. The mean is over the
        classes that occur in the rows or in the answers: a short table may lack some.
    """
    require_table(rows)
    if label not in rows:
        return {}
    known = rows[label].isin(classes).to_numpy()
    if not known.any():
        return {}
    truth, predicted = rows[label].to_numpy()[known], answers.to_numpy()[known]
    seen = sorted({*truth, *predicted})
    figure = macro_f1(one_hot(truth, seen), one_hot(predicted, seen))
    return {
        "rows": int(known.sum()),
        "accuracy": float((truth == predicted).mean()),
        "macro_f1": figure,
    }


def train(
    rows: pd.DataFrame,
    label: str,
    preparation: Preparation,
    tokenizer: Any,
    encoder: Any,
    settings: Settings,
    max_length: int = 128,
    validation: pd.DataFrame | None = None,
    **shape: Any,
) -> tuple[Hybrid, pd.DataFrame]:
    """Train a hybrid through `loop.fit`; classes weigh by the inverse of their frequency.

    Args:
        rows: Training rows.
        label: Column of the class.
        preparation: From `prepare`, on the same rows.
        tokenizer: The tokenizer of the encoder.
        encoder: From `load_encoder` or `first_layers`; stays as it is, unless `top_layers` says
            otherwise.
        settings: How to train; gradient accumulation is among them.
        max_length: Tokens kept of a text.
        validation: Rows that choose the best epoch; without them the last one stays.
        shape: `hidden`, `dropout`, `top_layers` of `HybridClassifier`.

    Returns:
        The hybrid, and the history of `loop.fit`.
    """
    for table in (rows, *([validation] if validation is not None else [])):
        require_columns(table, [label, *preparation.names])
    classes = sorted(rows[label].unique())
    encoded = _encoded(
        rows, preparation, tokenizer, max_length, [classes.index(value) for value in rows[label]]
    )
    torch.manual_seed(settings.seed)
    model = HybridClassifier(encoder, len(classes), encoded.columns.shape[1], **shape)
    model.learn_words(encoded.rows, tokenizer.pad_token_id)
    weight = len(rows) / (len(classes) * torch.bincount(encoded.labels))
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        encoded = replace(encoded, pooled=model.pooled(encoded.rows, tokenizer.pad_token_id))
    tuning = encoded
    if validation is None:
        settings = replace(settings, keep="last")  # nobody is there to choose an epoch by
    else:
        tuning = _encoded(
            validation,
            preparation,
            tokenizer,
            max_length,
            [classes.index(v) for v in validation[label]],
        )
    task = Task(encoded, tuning, cross_entropy(weight))
    history = loop.fit(model, task, settings, tokenizer.pad_token_id)
    return Hybrid(model.eval(), tokenizer, preparation, classes, max_length), history


def _encoded(
    rows: pd.DataFrame,
    preparation: Preparation,
    tokenizer: Any,
    max_length: int,
    labels: list[int] | None = None,
) -> EncodedRows:
    ids = encode(tokenizer, preparation.text(rows), max_length)
    return EncodedRows(
        ids, torch.tensor(labels or [0] * len(ids)), torch.from_numpy(preparation.columns(rows))
    )
