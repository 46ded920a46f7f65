"""Text and table in one model: an encoder for the texts, dense layers for the columns, joined for the classes.

Lesson 07 asks whether the columns help the text. Sources: Gorishniy et al. 2022, arXiv 2203.05556 (numbers as bins, so
that dense layers can tell a peak from a slope); Arora et al. 2017, "A simple but tough-to-beat baseline for sentence
embeddings" (rare words weigh more, what all texts share is taken away).
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
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, StandardScaler
from torch import Tensor, nn

from viralbert_utils import devices, frozen, models, training
from viralbert_utils.data import require_columns, require_rows, require_table
from viralbert_utils.encoders import encode, load_encoder, mask_for, pad
from viralbert_utils.evaluation import macro_f1, one_hot
from viralbert_utils.files import EXPORTED, DataError, check_sums, own_path
from viralbert_utils.losses import cross_entropy
from viralbert_utils.texts import normalise

SKEWED = 1.0  # skewness from which the logarithm of a count is taken


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
        The rows kept, and the rows set aside with their `reason`: `too many empty fields` or `rare class`.

    Raises:
        DataError: A column is missing.
    """
    require_columns(rows, [label, *fields])
    reason = pd.Series("", rows.index)
    reason[empty(rows[list(fields)]).sum(axis=1) > max_empty] = "too many empty fields"
    n_rows = rows.loc[reason == "", label].value_counts()
    reason[(reason == "") & ~rows[label].isin(n_rows.index[n_rows >= min_rows])] = "rare class"
    return rows[reason == ""], rows.assign(reason=reason)[reason != ""]


def snippet(rows: pd.DataFrame, label: str, n_rows: int) -> pd.DataFrame:
    """The first rows of each class in turn, for a quick try that still meets every class; in the table's order.

    Raises:
        DataError: There is no such column as `label`.
    """
    require_columns(rows, [label])
    turn = rows.groupby(label).cumcount().sort_values(kind="stable")
    return rows.loc[turn.index[:n_rows]].sort_index()


def empty(rows: pd.DataFrame) -> pd.DataFrame:
    """Which cells hold nothing: missing, or nothing that is seen (white space, invisible characters)."""
    require_table(rows)
    return rows.isna() | rows.map(lambda cell: not normalise(str(cell)))


@dataclass(frozen=True)
class Number:
    """What was learnt of a numeric column.

    Attributes:
        log: Whether the logarithm of one plus the value is taken, which goes for all below.
        median: In the place of a missing value.
        mean: Of the training values, for scaling.
        scale: Their standard deviation.
        edges: Between the bins, in order.
    """

    log: bool
    median: float
    mean: float
    scale: float
    edges: list[float]


@dataclass(frozen=True)
class Preparation:
    """From rows to a text and a vector of columns; plain values, so it is stored as JSON and not as pickle.

    Attributes:
        texts: Columns that are joined into one text.
        numbers: Numeric columns and what was learnt of them.
        categories: Categorical columns and their known values; any other value gives zeros.
    """

    texts: list[str]
    numbers: dict[str, Number]
    categories: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        """All columns that are read of a row."""
        return [*self.texts, *self.numbers, *self.categories]

    def text(self, rows: pd.DataFrame) -> list[str]:
        """One text a row: each field under its name, so that the model sees which one is empty.

        Raises:
            DataError: A column of `texts` is missing.
        """
        require_columns(rows, self.texts)
        gone = empty(rows[self.texts])
        return [
            " ".join(f"{name}: {'—' if none else normalise(str(value))}"
                     for name, value, none in zip(self.texts, values, nones, strict=True))
            for values, nones in zip(rows[self.texts].to_numpy(), gone.to_numpy(), strict=True)
        ]  # fmt: skip

    def columns(self, rows: pd.DataFrame) -> np.ndarray:
        """`(n_rows, n_columns)` float32: scaled numbers, which are missing, bins, categories.

        Raises:
            DataError: A column of `numbers` or `categories` is missing.
        """
        require_columns(rows, [*self.numbers, *self.categories])
        frame = _frame(rows, {name: number.log for name, number in self.numbers.items()}, list(self.categories))
        scaled, missing, bins = [], [], []
        for name, number in self.numbers.items():
            values = frame[name].fillna(number.median).to_numpy()
            scaled.append((values[:, None] - number.mean) / number.scale)
            missing.append(frame[[name]].isna())
            bins.append(one_hot(np.searchsorted(number.edges, values, "right"), list(range(len(number.edges) + 1))))
        known = [one_hot(frame[name].to_numpy(), values) for name, values in self.categories.items()]
        return np.hstack([np.empty((len(rows), 0)), *scaled, *missing, *bins, *known]).astype(np.float32)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Preparation:
        """What `dataclasses.asdict` made plain."""
        numbers = {name: Number(**number) for name, number in plain["numbers"].items()}
        return cls(plain["texts"], numbers, plain["categories"])


def prepare(
    rows: pd.DataFrame, texts: Sequence[str], numbers: Sequence[str] = (), categories: Sequence[str] = (),
    n_bins: int = 10,
) -> Preparation:  # fmt: skip
    """Learn the preparation from training rows.

    scikit-learn's ColumnTransformer learns (`column_transformer`); what it has learnt is kept as plain numbers, because
    a stored scikit-learn object is a pickle: code that runs when it is opened, and only with the same version.

    Args:
        rows: Training rows; numbers may be written as text, what is no number counts as missing.
        texts: Columns to read as text.
        numbers: Columns to read as numbers.
        categories: Columns to read as categories.
        n_bins: Of each number, equally full.

    Raises:
        DataError: A column that is not there.
    """
    require_columns(rows, [*texts, *numbers, *categories])
    plain = _frame(rows, dict.fromkeys(numbers, False), [])
    skewed = (plain.min() >= 0) & (plain.skew() > SKEWED)
    logs = {name: bool(skewed[name]) for name in numbers}
    fitted = column_transformer(list(numbers), list(categories), n_bins).fit(_frame(rows, logs, list(categories)))
    learnt: dict[str, Number] = {}
    if numbers:
        scaled, bins = fitted.named_transformers_["scaled"], fitted.named_transformers_["bins"]
        medians, means, scales = (part.tolist() for part in (scaled[0].statistics_, scaled[1].mean_, scaled[1].scale_))
        edges = [own[1:-1].tolist() for own in bins[1].bin_edges_]
        learnt = {
            name: Number(logs[name], *parts)
            for name, *parts in zip(numbers, medians, means, scales, edges, strict=True)
        }
    known = fitted.named_transformers_["categories"].categories_ if categories else []
    return Preparation(list(texts), learnt, {n: list(values) for n, values in zip(categories, known, strict=True)})


def column_transformer(numbers: list[str], categories: list[str], n_bins: int = 10) -> ColumnTransformer:
    """Scikit-learn's preparation, unfitted, for numeric columns and columns of strings."""
    median = SimpleImputer(strategy="median", keep_empty_features=True)
    bins = KBinsDiscretizer(n_bins, encode="onehot-dense", quantile_method="averaged_inverted_cdf")
    known = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [
            ("scaled", make_pipeline(median, StandardScaler()), numbers),
            ("missing", MissingIndicator(features="all"), numbers),
            ("bins", make_pipeline(median, bins), numbers),
            ("categories", known, categories),
        ]
    )


def _frame(rows: pd.DataFrame, logs: dict[str, bool], categories: list[str]) -> pd.DataFrame:
    """Numeric columns as numbers, or their logarithms; categories as strings, an empty one being a value, too."""
    found = {}
    for name, log in logs.items():
        values = pd.to_numeric(rows[name], errors="coerce").astype(float).replace([np.inf, -np.inf], np.nan)
        # Rounded: scikit-learn leaves a column no bin at all whose values differ by less than 1e-8.
        found[name] = (np.log1p(values.clip(lower=0)) if log else values).round(6)
    return pd.DataFrame(found | {name: rows[name].fillna("").astype(str) for name in categories}, index=rows.index)


class Inputs(NamedTuple):
    """What the hybrid reads of a batch.

    Attributes:
        text: Token ids `(n_rows, n_tokens)`, or pooled vectors `(n_rows, size)` of an encoder that does not learn.
        columns: `(n_rows, n_columns)`.
    """

    text: Tensor
    columns: Tensor


@dataclass(frozen=True)
class EncodedRows(training.Encoded):
    """Texts with the columns of their rows, for `training.fit`; with pooled vectors if they stay the same."""

    columns: Tensor
    pooled: Tensor | None = None

    @cached_property
    def digest(self) -> str:
        """Hash of texts, labels and columns."""
        return hashlib.sha256(super().digest.encode() + self.columns.numpy().tobytes()).hexdigest()

    def batch(self, positions: Sequence[int], pad_id: int) -> tuple[Any, Tensor]:
        """`Inputs` and attention mask of the rows at some positions."""
        columns = self.columns[list(positions)]
        if self.pooled is not None:
            return Inputs(self.pooled[list(positions)], columns), torch.ones(len(columns), 1)
        ids, mask = super().batch(positions, pad_id)
        return Inputs(ids, columns), mask


class HybridClassifier(models.PooledClassifier):
    """Encoder and pooling for the text, dense layers for the columns, one linear layer over both.

    The text's vector is the mean of its token vectors, weighted by how few training texts have the token: of a title
    with a hero's name, the name is what tells. `learn_words` sets the weights.

    Args:
        encoder: From `load_encoder` or `first_layers`.
        n_classes: Size of the output.
        n_columns: Of `Preparation.columns`; 0 leaves the text alone.
        hidden: Width of the dense layers.
        dropout: Of the text's vector and of the dense layers.
        top_layers: Layers of the encoder that train, see `frozen.freeze`; word vectors do not.
    """

    token_weights: Tensor

    def __init__(
        self, encoder: Any, n_classes: int, n_columns: int, hidden: int = 32, dropout: float = 0.3,
        top_layers: int | None = 0,
    ) -> None:  # fmt: skip
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
        """Weights of the tokens from encoded training texts (what all of them have, weighs nothing), and the centre."""
        seen = torch.tensor([token for row in rows for token in {*row}])
        n_texts = torch.bincount(seen, minlength=len(self.token_weights))
        self.token_weights.copy_(torch.log((len(rows) + 1) / (n_texts + 1)))
        self.centre.copy_(self.pooled(rows, pad_id).mean(dim=0))

    @torch.inference_mode()
    def pooled(self, rows: list[list[int]], pad_id: int) -> Tensor:
        """Vectors of encoded texts before centring and normalisation `(n_texts, size)`, on the CPU."""
        device = devices.of(self)
        prepare = (partial(pad, rows[start : start + 128], pad_id) for start in range(0, len(rows), 128))
        with devices.computing(device, devices.precision(device)):
            return torch.cat([self._pool(*batch).float() for batch in devices.ahead(prepare, device)]).cpu()

    def _pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        seen = mask_for(self.encoder, attention_mask)
        hidden = self.encoder(input_ids=input_ids, attention_mask=seen).last_hidden_state
        weights = (self.token_weights[input_ids] * attention_mask).unsqueeze(-1)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)

    def forward(self, inputs: Any, attention_mask: Tensor) -> Tensor:
        """Logits `(n_rows, n_classes)` of `Inputs` and mask `(n_rows, n_tokens)`."""
        text, columns = inputs
        pooled = text if text.is_floating_point() else self._pool(text, attention_mask)
        vectors = self.dropout(self.norm(pooled - self.centre))
        return self.head(torch.cat([vectors, self.dense(columns)], dim=1))


def first_layers(encoder: Any, n_layers: int) -> Any:
    """An encoder's word vectors and lowest layers as an encoder of its own, which shares their weights."""
    lower = frozen.split(encoder, len(frozen.layers_of(encoder)) - n_layers)[0]
    lower.config = copy.deepcopy(encoder.config)
    lower.config.num_hidden_layers = n_layers
    return lower


@dataclass(frozen=True)
class Hybrid:
    """A trained hybrid with all it needs to read rows.

    Attributes:
        model: In evaluation mode.
        tokenizer: Of its encoder.
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
        return models.predict_logits(self.model, encoded, self.tokenizer.pad_token_id).softmax(dim=1).numpy()

    def predict(self, rows: pd.DataFrame, label: str = "label") -> tuple[pd.DataFrame, dict[str, float]]:
        """Answers for rows with or without labels.

        Args:
            rows: With the columns that the preparation reads.
            label: Column that holds the class where it is known; it may be missing, as a whole or in some rows.

        Returns:
            A row each with `answer` and `certainty` (its probability); and, over the rows with a known class, `rows`,
            `accuracy` and `macro_f1`, or nothing where there are none.

        Raises:
            DataError: A column that the preparation reads is missing.
        """
        probabilities = self.probabilities(rows)
        answers = pd.DataFrame({"answer": np.array(self.classes)[probabilities.argmax(axis=1)],
                                "certainty": probabilities.max(axis=1)}, index=rows.index)  # fmt: skip
        known = rows[label].isin(self.classes).to_numpy() if label in rows else np.zeros(len(rows), bool)
        if not known.any():
            return answers, {}
        truth, found = rows[label].to_numpy()[known], answers["answer"].to_numpy()[known]
        figure = macro_f1(one_hot(truth, self.classes), one_hot(found, self.classes))
        return answers, {"rows": int(known.sum()), "accuracy": float((truth == found).mean()), "macro_f1": figure}

    def save(self, folder: Path | str) -> None:
        """Write model, tokenizer and preparation as one folder, whole or not at all, without pickle."""
        models.save_classifier(folder, self.model, self.tokenizer, self.classes, kind="hybrid", shape=self.model.shape,
                               preparation=asdict(self.preparation), max_length=self.max_length)  # fmt: skip

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str | None = None) -> Hybrid:
        """What `save` wrote.

        Args:
            folder: See there.
            device: Where the model is put; `devices.default` if not given.

        Raises:
            DataError: The folder is none of those, or damaged.
        """
        path, device = own_path(folder), torch.device(device) if device else devices.default()
        if (path / EXPORTED).is_file():
            raise DataError(
                f"{path} is an exported hybrid already: expected one that `save` wrote; give the folder that it was "
                "made from, or read it with OnnxModel.load, whose logits(texts, columns) take the table"
            )
        try:
            settings = json.loads((path / "classifier.json").read_text(encoding="utf-8"))
            if settings["kind"] != "hybrid":
                raise ValueError(f"it holds a classifier of the kind {settings['kind']!r}")
            models.check_settings(settings, path / "classifier.json", ["hybrid"])
            check_sums(path)
            models.check_layers(path / "encoder" / "config.json")
            tokenizer, encoder = load_encoder(str(path / "encoder"), device)
            models.check_length(settings, encoder, path)
            model = HybridClassifier(encoder, len(settings["names"]), **settings["shape"], dropout=settings["dropout"])
            head = load_file(path / "head.safetensors")
            if head.keys() != model.head_state().keys():
                raise ValueError(f"expected {sorted(model.head_state())}, found {sorted(head)}")
            model.load_state_dict(head, strict=False)
            preparation = Preparation.from_plain(settings["preparation"])
            found = cls(model.eval(), tokenizer, preparation, settings["names"], settings["max_length"])
            found.probabilities(pd.DataFrame({name: [None] for name in preparation.names}))  # does all fit together?
        except Exception as error:  # a missing or broken file, another kind of model: one remedy
            raise DataError(f"{path} is no saved hybrid, or a damaged one ({error}); save it again") from error
        return found


def train(
    rows: pd.DataFrame, label: str, preparation: Preparation, tokenizer: Any, encoder: Any,
    settings: training.Settings, max_length: int = 128, validation: pd.DataFrame | None = None, **shape: Any,
) -> tuple[Hybrid, pd.DataFrame]:  # fmt: skip
    """Train a hybrid through `training.fit`; classes weigh by the inverse of their frequency.

    Args:
        rows: Training rows.
        label: Column of the class.
        preparation: From `prepare`, on the same rows.
        tokenizer: Of the encoder.
        encoder: From `load_encoder` or `first_layers`; stays as it is, unless `top_layers` says otherwise.
        settings: Of the training, gradient accumulation among them.
        max_length: Tokens kept of a text.
        validation: Rows that choose the best epoch; without them the last one stays.
        shape: `hidden`, `dropout`, `top_layers` of `HybridClassifier`.

    Returns:
        The hybrid, and the history of `training.fit`.
    """
    for table in (rows, *([validation] if validation is not None else [])):
        require_columns(table, [label, *preparation.names])
    classes = sorted(rows[label].unique())
    encoded = _encoded(rows, preparation, tokenizer, max_length, [classes.index(value) for value in rows[label]])
    torch.manual_seed(settings.seed)
    model = HybridClassifier(encoder, len(classes), encoded.columns.shape[1], **shape)
    model.learn_words(encoded.rows, tokenizer.pad_token_id)
    weight = len(rows) / (len(classes) * torch.bincount(encoded.labels))
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        encoded = replace(encoded, pooled=model.pooled(encoded.rows, tokenizer.pad_token_id))
    tuning = encoded
    if validation is None:
        # Nobody chooses an epoch by these: the figure that only grows makes the last one the best.
        settings = replace(settings, metric="epoch")
    else:
        tuning = _encoded(validation, preparation, tokenizer, max_length, [classes.index(v) for v in validation[label]])
    task = training.Task(encoded, tuning, cross_entropy(weight))
    history = training.fit(model, task, settings, tokenizer.pad_token_id)
    return Hybrid(model.eval(), tokenizer, preparation, classes, max_length), history


def _encoded(
    rows: pd.DataFrame, preparation: Preparation, tokenizer: Any, max_length: int, labels: list[int] | None = None
) -> EncodedRows:
    ids = encode(tokenizer, preparation.text(rows), max_length)
    return EncodedRows(ids, torch.tensor(labels or [0] * len(ids)), torch.from_numpy(preparation.columns(rows)))
