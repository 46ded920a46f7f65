"""RuGoEmotions' way: 28 emotions by `Trainer` of transformers, with the course's weighted loss.

    .venv/bin/python benchmarks/trainer.py [data] [encoder] [output folder]

`data` is `sample` (default), `hub` or a data folder, such as one that `viralbert translate --hub`
has written; `encoder` is a hub name or a folder of transformers (`embedded` by default). The
network is `AutoModelForSequenceClassification`. Its own loss for several labels knows no weights,
so `compute_loss_func` gives it `losses.binary_cross_entropy`, which lessons and `viralbert train`
use. A threshold for each class is tuned on validation. The script prints the losses of the epochs,
and macro-F1 on the test rows at 0.5 and at the thresholds. Model, tokenizer and thresholds are
saved as a folder that any program with transformers can read.

It is a side path for those who have a Trainer already: `viralbert train --pos-weight clipped` has
the same loss and does more (long texts, resuming, intervals, ONNX).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

from viralbert_utils.base import tokens
from viralbert_utils.base.files import own_path, write_whole
from viralbert_utils.data import cleaning, sources, splits
from viralbert_utils.data.emotions import EMOTIONS, multi_hot
from viralbert_utils.encoders import embedded
from viralbert_utils.encoders.loading import load_tokenizer
from viralbert_utils.evaluation import metrics, thresholds
from viralbert_utils.lessons import rare_classes
from viralbert_utils.training import losses

MAX_LENGTH = 64
ARGUMENTS: dict[str, Any] = {
    "num_train_epochs": 4,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    "learning_rate": 2e-5,
    "weight_decay": 0.01,
    "warmup_steps": 0.1,  # of all steps
    "lr_scheduler_type": "cosine",
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "logging_strategy": "epoch",
    "report_to": "none",
    "seed": 0,
}


class Rows(Dataset):
    """Texts as token ids, with a 0/1 label for each class, as the Trainer's collator takes them."""

    def __init__(self, table: pd.DataFrame, tokenizer: Any) -> None:
        """Encode the texts of a table."""
        self.ids = tokens.encode(tokenizer, table["text"].tolist(), MAX_LENGTH)
        self.labels = multi_hot(table["labels"]).astype(np.float32)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Token ids and labels of one text."""
        return {"input_ids": self.ids[index], "labels": self.labels[index]}


def loss_function(labels: np.ndarray) -> Callable[..., Tensor]:
    """The course's weighted loss in the form that `Trainer(compute_loss_func=...)` calls.

    Args:
        labels: `(n_texts, n_classes)`, 0/1, of the training texts: they decide on the weights.
    """
    weight = rare_classes.positive_weights(torch.from_numpy(labels), "clipped")
    ours = losses.binary_cross_entropy(weight)

    def compute(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return ours(outputs["logits"], labels)

    return compute


def make_trainer(
    encoder: str, parts: dict[str, pd.DataFrame], output: Path, **arguments: Any
) -> Trainer:
    """A Trainer for the 28 emotions, ready to train.

    Args:
        encoder: `embedded`, a hub name or a folder.
        parts: `train` and `validation`, each with `text` and `labels`.
        output: Folder of the checkpoints.
        arguments: Of `TrainingArguments`, before those of `ARGUMENTS`.
    """
    tokenizer = load_tokenizer(encoder)
    name = str(embedded.embedded_folder()) if encoder == "embedded" else encoder
    model = AutoModelForSequenceClassification.from_pretrained(
        name,
        num_labels=len(EMOTIONS),
        id2label=dict(enumerate(EMOTIONS)),
        label2id={name: number for number, name in enumerate(EMOTIONS)},
        problem_type="multi_label_classification",
        trust_remote_code=False,
    )
    train, validation = (Rows(parts[split], tokenizer) for split in ("train", "validation"))
    return Trainer(
        model=model,
        args=TrainingArguments(str(output), **ARGUMENTS | arguments),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_loss_func=loss_function(train.labels),
        compute_metrics=_macro_f1,
    )


def _macro_f1(prediction: EvalPrediction) -> dict[str, float]:
    logits, labels = prediction.predictions, np.asarray(prediction.label_ids)
    return {"macro_f1": metrics.macro_f1(labels, (np.asarray(logits) > 0).astype(int))}


def run(data: str, encoder: str, output: Path, max_rows: int = 0, **arguments: Any) -> dict:
    """Train, tune thresholds on validation, judge on test, save; returns the figures.

    Args:
        data: `sample`, `hub` or a data folder.
        encoder: See `make_trainer`.
        output: Folder that gets the model, its tokenizer and `thresholds.json`.
        max_rows: Only the first rows of each table; 0 = all.
        arguments: See `make_trainer`.
    """
    cleaned = cleaning.clean(sources.load("emotions", data), **cleaning.RULES["emotions"])
    parts = splits.split_set("emotions", cleaned.splits)
    parts = {split: table.head(max_rows or len(table)) for split, table in parts.items()}
    with tempfile.TemporaryDirectory() as checkpoints:
        trainer = make_trainer(encoder, parts, Path(checkpoints), **arguments)
        trainer.train()
    tokenizer = trainer.processing_class
    found = {}
    for split in ("validation", "test"):
        prediction = trainer.predict(Rows(parts[split], tokenizer))
        found[split] = np.asarray(prediction.label_ids).astype(int), expit(prediction.predictions)
    tuned = thresholds.shrunk(*found["validation"])
    labels, probabilities = found["test"]
    figures = {
        "loss": trainer.evaluate()["eval_loss"],
        "macro_f1_at_0.5": metrics.macro_f1(labels, thresholds.decide(probabilities, 0.5)),
        "macro_f1": metrics.macro_f1(labels, thresholds.decide(probabilities, tuned)),
    }
    trainer.save_model(str(output))
    named = dict(zip(EMOTIONS, tuned.tolist(), strict=True))
    write_whole(output / "thresholds.json", json.dumps(named, indent=1))
    return figures


def main() -> None:
    """Read data, encoder and output folder from the command line."""
    data, encoder, output = [
        *sys.argv[1:],
        *["sample", "embedded", "runs/trainer"][len(sys.argv) - 1 :],
    ]
    for name, value in run(data, encoder, own_path(output)).items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    main()
