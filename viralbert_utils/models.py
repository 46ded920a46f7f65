"""The classifiers of the course: an encoder, one vector a text, a head; saved as a folder, without pickle.

Lesson 02 builds the pooled classifier, lesson 03 the one for two tasks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from viralbert_utils import devices
from viralbert_utils.emotions import EMOTIONS
from viralbert_utils.encoders import POOLINGS, load_encoder, mask_for, n_positions, pad, pool, pooled_size
from viralbert_utils.files import EXPORTED, DataError, check_plain, check_sums, own_path, whole_folder, write_sums
from viralbert_utils.hub import quiet
from viralbert_utils.thresholds import MULTI_LABEL, SINGLE_LABEL


@dataclass(frozen=True)
class Head:
    """What stands on the text's vector for one task: hidden layers with ReLU and dropout, then one output a class.

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
    """ViralBERT v2's two heads, 768-256-128-1 and 768-256-28, in proportion to the encoder's size."""
    third, sixth = hidden_size // 3, hidden_size // 6
    return {
        "virality": Head(("viral",), (third, sixth), (0.3, 0.2)),
        "emotions": Head(EMOTIONS, (third,), (0.3,)),
    }


class _TextVector(nn.Module):
    """Encoder, pooling, centring, normalisation and dropout: what the classifiers share.

    Args:
        encoder: From `load_encoder`.
        pooling: See `encoders.pool`.
        dropout: Of the pooled vector.
        train_embeddings: Whether the word vectors train, too. Each step then moves only those whose tokens it has read,
            so a large vocabulary costs little.
        n_queries: Of attention pooling.
    """

    centre: Tensor

    def __init__(
        self, encoder: Any, pooling: str = "mean", dropout: float = 0.1, train_embeddings: bool = True,
        n_queries: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden_size = encoder.config.hidden_size
        self.size = pooled_size(pooling, hidden_size, n_queries)
        self.encoder = encoder
        self.pooling = pooling
        self.train_embeddings = train_embeddings
        # Queries of zero weigh all tokens alike: attention begins as the mean.
        attention = "attention" in pooling.split("+")
        self.queries = nn.Parameter(torch.zeros(n_queries, hidden_size)) if attention else None
        # Pooled vectors of different texts are nearly parallel; what they share can be taken away first (`centre_on`).
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
        """Take away from every pooled vector what those of training texts have in common (their mean), before training.

        A linear layer at a usual rate needs very many steps to tell vectors apart that differ in the third digit.

        Args:
            rows: Encoded texts, some hundred at least.
            pad_id: Of the tokenizer.

        Raises:
            ValueError: No text, or a single one, which would leave nothing of itself.
        """
        if len(rows) < 2:
            raise DataError(f"{len(rows)} texts to centre on; give some hundred training texts")
        self.centre.copy_(text_vectors(self.encoder, rows, pad_id, self.pooling, self.queries).mean(dim=0))

    def head_state(self) -> dict[str, Tensor]:
        """Everything outside the encoder."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("encoder.")}


class PooledClassifier(_TextVector):
    """Encoder, one vector a text, one linear layer.

    Args:
        encoder: See `_TextVector`, also for `pooling` and `options`.
        n_classes: Size of the output.
        pooling: See `encoders.pool`.
        rates: Share of the texts that carry each class `(n_classes,)`; the outputs start there instead of at one half,
            which for rare classes saves the first few hundred steps.
        options: Of `_TextVector`.
    """

    def __init__(
        self, encoder: Any, n_classes: int, pooling: str = "mean", dropout: float = 0.1,
        rates: Tensor | None = None, **options: Any,
    ) -> None:  # fmt: skip
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
        encoder: See `_TextVector`, also for `pooling` and `options`.
        heads: Task -> head, e.g. `viralbert_heads(encoder.config.hidden_size)`.
        pooling: See `encoders.pool`; ViralBERT v2 takes `cls`.
        rates: Task -> share of the texts that carry each class, where the outputs start.
        options: Of `_TextVector`.
    """

    def __init__(
        self, encoder: Any, heads: Mapping[str, Head], pooling: str = "cls", dropout: float = 0.1,
        rates: Mapping[str, Tensor] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        """See the class."""
        super().__init__(encoder, pooling, dropout, **options)
        self.tasks = dict(heads)
        layers = {task: head.build(self.size) for task, head in heads.items()}
        for task, shares in (rates or {}).items():
            _start_at(layers[task][-1], shares)
        self.heads = nn.ModuleDict(layers).to(devices.of(encoder))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, task: str | None = None) -> Tensor:
        """Logits of one task `(n_texts, n_classes)`, or of all of them side by side, in the order of `tasks`."""
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


Classifier = PooledClassifier | MultiTaskClassifier


def save_classifier(
    folder: Path | str, model: Classifier, tokenizer: Any, names: list[str] | None = None, **about: Any
) -> None:
    """Write a classifier as a folder: encoder and tokenizer in transformers' format, heads as safetensors, settings.

    Args:
        folder: Replaced as a whole when the new one is complete.
        model: A trained classifier.
        tokenizer: Its tokenizer.
        names: The classes of a pooled classifier, in the order of its outputs; several tasks know theirs.
        about: Anything else that belongs to the model, as plain values: max_length, head_share, problem_type and, of a
            pooled classifier, task (see `predictor.described`), what it was trained on.
    """
    what: dict[str, Any]
    if isinstance(model, MultiTaskClassifier):
        what = {"kind": "multitask", "tasks": {task: asdict(head) for task, head in model.tasks.items()}}
    else:
        what = {"kind": "pooled", "names": list(names or [])}
    settings = what | {
        "pooling": model.pooling, "dropout": model.dropout.p,
        "n_queries": 0 if model.queries is None else len(model.queries),
        "train_embeddings": model.train_embeddings,
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")}, **about,
    }  # fmt: skip
    with whole_folder(folder) as new, quiet():
        # From the CPU, wherever the model is: what the folder holds depends on no device. Nor on chance: nothing here
        # reads BERT's pooler, and where the folder of an encoder has none, each loading draws it anew.
        weights = {
            name: torch.zeros_like(part) if name.startswith("pooler.") else part
            for name, part in devices.on_cpu(model.encoder.state_dict()).items()
        }
        model.encoder.save_pretrained(new / "encoder", state_dict=weights)
        tokenizer.save_pretrained(new / "encoder")
        head = {name: part.contiguous() for name, part in devices.on_cpu(model.head_state()).items()}
        save_file(head, new / "head.safetensors")
        (new / "classifier.json").write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")
        write_sums(new)


def load_classifier(folder: Path | str, device: torch.device | str | None = None) -> tuple[Any, Any, dict[str, Any]]:
    """Model in evaluation mode, tokenizer and settings of a folder that `save_classifier` wrote.

    Args:
        folder: See there.
        device: Where the model is put; `devices.default` if not given.

    Raises:
        DataError: The folder is none of those, or damaged, or a hybrid's.
    """
    path = own_path(folder)
    if (path / EXPORTED).is_file():
        raise DataError(
            f"{path} is an exported model already: expected one to train or to export; give the folder that it was "
            "made from, or read it as it is with Predictor.load (viralbert predict, viralbert serve)"
        )
    if not (path / "classifier.json").is_file():
        raise DataError(f"{path} is no saved classifier: expected classifier.json, encoder/ and head.safetensors there")
    check_plain(path)
    settings = _read_json(path / "classifier.json")
    if settings.get("kind") == "hybrid":
        raise DataError(
            f"{path} is a hybrid: it needs a table beside each text, and here are texts alone; in Python: "
            "Hybrid.load(folder).predict(rows) (viralbert_utils.hybrid, lesson 07)"
        )
    check_settings(settings, path / "classifier.json")
    check_sums(path)
    check_layers(path / "encoder" / "config.json")
    tokenizer, encoder = load_encoder(str(path / "encoder"), device)
    check_length(settings, encoder, path)
    model: Classifier
    options = {name: settings[name] for name in ("pooling", "dropout", "n_queries", "train_embeddings")}
    try:
        if settings["kind"] == "multitask":
            heads = {
                task: Head(tuple(head["names"]), tuple(head["hidden"]), tuple(head["dropout"]))
                for task, head in settings["tasks"].items()
            }
            model = MultiTaskClassifier(encoder, heads, **options)
        else:
            model = PooledClassifier(encoder, len(settings["names"]), **options)
        head = load_file(path / "head.safetensors")
        if head.keys() != model.head_state().keys():
            raise ValueError(f"expected {sorted(model.head_state())}, found {sorted(head)}")
        model.load_state_dict(head, strict=False)
    except Exception as error:  # a missing or broken file, or a head of another size
        raise DataError(f"the head in {path} does not fit its settings ({error}); save the model again") from None
    return model.eval(), tokenizer, settings


MOST = 100_000  # classes, tasks, or numbers in a layer: what a head of this course could have, many times over


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); save the model again") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected settings by name, found {found!r:.80}; save the model again")
    return found


def check_settings(settings: Mapping[str, Any], path: Path, kinds: Sequence[str] = ("pooled", "multitask")) -> None:
    """Refuse settings that no saved classifier has, before anything is built from them.

    Raises:
        DataError: One is missing, of another type or out of its range; the message names it.
    """

    def whole(value: Any, least: int, most: int = MOST) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    def share(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1

    def names(value: Any) -> bool:
        known = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
        return known and len(set(value)) == len(value) <= MOST

    def tasks(value: Any) -> bool:
        return isinstance(value, dict) and 1 <= len(value) <= 1000 and all(
            name and isinstance(head, dict) and names(head.get("names")) and head["names"]
            and isinstance(head.get("hidden"), list) and len(head["hidden"]) <= 16
            and all(whole(width, 1, 2**14) for width in head["hidden"])
            and isinstance(head.get("dropout"), list) and len(head["dropout"]) == len(head["hidden"])
            and all(map(share, head["dropout"]))
            for name, head in value.items()
        )  # fmt: skip

    types = (SINGLE_LABEL, MULTI_LABEL)
    expected: dict[str, tuple[Callable[[Any], bool], str]] = {
        "kind": (lambda value: value in kinds, f"one of {', '.join(kinds)}"),
        "pooling": (
            lambda value: isinstance(value, str) and len(value) < 100 and set(value.split("+")) <= set(POOLINGS),
            f"{', '.join(POOLINGS)}, or several joined by +",
        ),
        "dropout": (share, "a number from 0 to 1"),
        "n_queries": (lambda value: whole(value, 0, 1000), "a whole number from 0 to 1000"),
        "train_embeddings": (lambda value: isinstance(value, bool), "true or false"),
    }
    if settings.get("kind") == "multitask":
        expected["tasks"] = (
            tasks, "by name, each with names (different texts), hidden (widths up to 16,384) and dropout (one for each)"
        )  # fmt: skip
    else:
        expected["names"] = (names, "a list of different names of classes")
    optional: dict[str, tuple[Callable[[Any], bool], str]] = {
        "max_length": (lambda value: whole(value, 3), "a whole number of tokens, at least 3"),
        "head_share": (share, "a number from 0 to 1"),
        "problem_type": (lambda value: value in types, f"one of {', '.join(types)}"),
        "task": (lambda value: isinstance(value, str) and value != "", "a name"),
    }
    for name, (fits, what) in (expected | {n: rule for n, rule in optional.items() if n in settings}).items():
        try:
            good = name in settings and fits(settings[name])
        except TypeError:  # a list where a name is looked up
            good = False
        if not good:
            found = f"{settings[name]!r:.80}" if name in settings else "nothing"
            raise DataError(f"{path}: {name}: expected {what}, found {found}; save the model again")


def check_layers(path: Path) -> None:
    """Refuse an encoder of more layers than anybody has, which would be built one by one before its weights are read.

    Raises:
        DataError: It has more than a thousand, or a size that is no number.
    """
    if not path.is_file():
        return  # `load_encoder` says so
    for name, value in _read_json(path).items():
        if name in ("num_hidden_layers", "n_layers", "num_layers") and not (isinstance(value, int) and value <= 1000):
            raise DataError(f"{path}: {name}: expected a whole number up to 1000, found {value!r:.80}; save the model "
                            "again")  # fmt: skip


def check_length(settings: Mapping[str, Any], encoder: Any, path: Path) -> None:
    """Refuse a length of texts that the encoder has no positions for: the first long text would end in an error.

    Raises:
        DataError: `max_length` is greater than the number of positions.
    """
    room = n_positions(encoder)
    if settings.get("max_length", 0) > room:
        raise DataError(
            f"{path / 'classifier.json'}: max_length: expected at most {room}, the positions of the encoder, found "
            f"{settings['max_length']}; save the model again"
        )


class Texts(Protocol):
    """What can be put into batches: `training.Encoded`, or vectors that were computed before (`frozen.Cached`)."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        ...

    def batch(self, positions: Sequence[int], pad_id: int) -> tuple[Tensor, Tensor]:
        """Input and attention mask of the texts at some positions."""
        ...


def predict_logits(
    model: nn.Module, texts: list[list[int]] | Texts, pad_id: int, batch_size: int = 128, precision: str = "auto",
    **options: Any,
) -> Tensor:  # fmt: skip
    """Logits of encoded texts in their order `(n_texts, n_classes)`, on the CPU; batches hold texts of like length.

    Args:
        model: Any classifier; it computes where it is.
        texts: Token ids, or what else can be put into batches.
        pad_id: Of the tokenizer.
        batch_size: Texts at once.
        precision: See `devices.precision`.
        options: Given to the model, e.g. `task="emotions"`.
    """
    return _in_batches(model, partial(model, **options), texts, pad_id, batch_size, precision)


@torch.inference_mode()
def array_logits(model: nn.Module, *inputs: np.ndarray, precision: str = "auto") -> np.ndarray:
    """Logits of one batch, float32, arrays in and out; computed where the model is, see `devices.precision`."""
    model.eval()
    device = devices.of(model)
    with devices.computing(device, devices.precision(device, precision)):
        return model(*(torch.from_numpy(part).to(device) for part in inputs)).float().cpu().numpy()


def text_vectors(
    encoder: Any, rows: list[list[int]], pad_id: int, pooling: str = "mean", queries: Tensor | None = None,
    batch_size: int = 128, precision: str = "auto",
) -> Tensor:  # fmt: skip
    """Pooled vectors of an encoder as it stands `(n_texts, size)`, on the CPU; see `encoders.pool`."""

    def step(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = encoder(input_ids=input_ids, attention_mask=mask_for(encoder, attention_mask))[0]
        return pool(hidden, attention_mask, pooling, queries)

    return _in_batches(encoder, step, rows, pad_id, batch_size, precision)


@torch.inference_mode()
def _in_batches(
    module: nn.Module, step: Callable[[Tensor, Tensor], Tensor], texts: list[list[int]] | Texts, pad_id: int,
    batch_size: int, precision: str,
) -> Tensor:  # fmt: skip
    training = module.training
    module.eval()
    device = devices.of(module)
    dtype = devices.precision(device, precision)
    lengths = [len(row) for row in texts] if isinstance(texts, list) else texts.lengths
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])

    def prepare(positions: list[int]) -> tuple[Tensor, Tensor]:
        if isinstance(texts, list):
            return pad([texts[i] for i in positions], pad_id)
        return texts.batch(positions, pad_id)

    plan = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    with devices.computing(device, dtype):
        # Copied to the CPU once, at the end: a copy waits for all that the device has been given to do.
        parts = [step(*batch).float() for batch in devices.ahead((partial(prepare, own) for own in plan), device)]
    module.train(training)
    return torch.cat(parts).cpu()[torch.argsort(torch.tensor(order))]
