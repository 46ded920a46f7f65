"""Training from the command line, from data to a judged model.

What comes out are the model, its thresholds, and figures with intervals and a baseline beside them.

The functions of lessons 01 to 04 in one row. Under torchrun (`processes`) all processes train,
the first one writes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from viralbert import distillation
from viralbert.environment import environment
from viralbert.labelled import read_set
from viralbert.serving.predictor import Predictor
from viralbert.trainings import SPLITS, Training, finished, recipe
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import locked, write_whole
from viralbert_utils.base.tokens import encode
from viralbert_utils.data import combine, emotions, sources
from viralbert_utils.encoders.loading import load_encoder
from viralbert_utils.evaluation import baselines, intervals, metrics
from viralbert_utils.evaluation.thresholds import MULTI_LABEL, Thresholds, cross_fit, decide
from viralbert_utils.evaluation.thresholds import RULES as THRESHOLD_RULES
from viralbert_utils.models import classifiers, inference
from viralbert_utils.models.classifiers import MultiTaskClassifier, PooledClassifier
from viralbert_utils.models.storage import Classifier
from viralbert_utils.training import loop, losses, processes
from viralbert_utils.training.settings import Encoded, Settings, Task

RULE = "shrunk"
CLASSES = {"emotions": emotions.EMOTIONS, "cedr": emotions.CEDR_CLASSES, "virality": ("viral",)}


Labelled = dict[str, tuple[list[str], np.ndarray]]  # split -> texts, labels (n_texts, n_classes)


def run(training: Training, output: Path, show_progress: bool = False) -> dict[str, Any]:
    """Train and evaluate; a stopped run goes on with its next epoch.

    A finished training is not repeated.

    A second training into the same folder waits for the first, and finds what it has left.

    Args:
        training: Encoder, data and settings.
        output: Gets `model/`, `metrics.json`, `history.csv` and, if wished, `onnx/`.
        show_progress: A progress bar for each epoch.

    Returns:
        What stands in `metrics.json`.

    Raises:
        DataError: Bad data, or the folder holds another training.
    """
    with ExitStack() as stack:
        with processes.first_alone():
            if not processes.rank():
                stack.enter_context(locked(output))
        return _run(training, output, show_progress)


def _run(training: Training, output: Path, show_progress: bool) -> dict[str, Any]:
    if training.dataset == "viralbert":
        if processes.n_processes() > 1:
            raise DataError("dataset viralbert is trained by one process; call it without torchrun")
        return distillation.run(training, output, show_progress)
    started = time.perf_counter()
    sets, files = read(training)
    if (done := finished(output, training, files)) is not None:
        return done
    with processes.first_alone():  # it may have to build or to fetch the encoder
        tokenizer, encoder = load_encoder(training.encoder)
    training.check_length(tokenizer, encoder)
    names = {task: CLASSES[task] for task in sets}
    encoded = {
        task: {
            split: Encoded(encode(tokenizer, texts, training.max_length), torch.tensor(labels))
            for split, (texts, labels) in parts.items()
        }
        for task, parts in sets.items()
    }
    model = _new_model(training, encoder, names, encoded, tokenizer.pad_token_id)
    rate = training.learning_rate or (1e-3 if training.encoder == "embedded" else 2e-5)
    settings = Settings(
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=rate,
        head_factor=10,
        seed=training.seed,
        schedule=training.schedule,
        surgery="pcgrad" if len(sets) > 1 else "none",
    )
    loss = losses.binary_cross_entropy()
    tasks = {
        task: Task(parts["train"], parts["validation"], loss) for task, parts in encoded.items()
    }
    given = tasks if len(tasks) > 1 else next(iter(tasks.values()))
    checkpoint = output / "checkpoint.pt"
    history = loop.fit(model, given, settings, tokenizer.pad_token_id, checkpoint, show_progress)
    if processes.rank():
        return {}
    seconds = time.perf_counter() - started
    tuned, figures = {}, {}
    for task, parts in encoded.items():
        which: dict[str, Any] = {"task": task} if len(tasks) > 1 else {}
        scores = {
            split: inference.predict_probabilities(
                model, parts[split], tokenizer.pad_token_id, **which
            ).astype(float)
            for split in SPLITS.values()
        }
        tuned[task] = Thresholds.tune(
            names[task], sets[task]["validation"][1], scores["validation"], RULE
        )
        figures[task] = _figures(training, sets[task], scores)
    _save(output / "model", model, tokenizer, tuned, training)
    if training.export_onnx:
        from viralbert.serving.export import export

        export(output / "model", output / "onnx")
    write_whole(output / "history.csv", history.to_csv(index=False))
    n_rows = {
        task: {split: len(texts) for split, (texts, _) in parts.items()}
        for task, parts in sets.items()
    }
    result = {
        "recipe": recipe(training),
        "figures": figures,
        "rows": n_rows,
        "files": files,
        "seconds": round(seconds, 1),
        "processes": processes.n_processes(),
        "environment": environment(),
    }
    write_whole(output / "metrics.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    checkpoint.unlink(missing_ok=True)
    return result


def read(training: Training) -> tuple[dict[str, Labelled], list[dict[str, Any]]]:
    """Task -> cleaned and split rows; and the files that were read, with their sha256.

    Raises:
        DataError: As `sources.load` and `cleaning.clean`.
    """
    files: list[dict[str, Any]] = []

    def tables(name: str) -> dict[str, pd.DataFrame]:
        return read_set(name, training, files)[0]

    has_cedr = sources.has("cedr", training.data) or training.data != "sample"
    general = {} if training.dataset == "cedr" and has_cedr else tables("emotions")
    if training.dataset in ("emotions", "multitask"):
        labelled = {"emotions": _multi_hot(general, len(emotions.EMOTIONS))}
        if training.dataset == "multitask":
            viral = tables("virality")
            labelled["virality"] = {
                s: (list(t["text"]), t[["label"]].to_numpy(int)) for s, t in viral.items()
            }
        return labelled, files
    cedr = tables("cedr") if has_cedr else {}
    none = pd.DataFrame({"text": [], "labels": []})
    six = {s: combine.six_classes(general.get(s, none), cedr.get(s))[0] for s in cedr or general}
    if cedr and general:
        six, added, _ = combine.native_and_added(six)
        six["train"] = pd.concat([six["train"], added], ignore_index=True)
    return {"cedr": _multi_hot(six, len(emotions.CEDR_CLASSES))}, files


def _multi_hot(tables: Mapping[str, pd.DataFrame], n_classes: int) -> Labelled:
    return {
        s: (list(t["text"]), emotions.multi_hot(t["labels"], n_classes)) for s, t in tables.items()
    }


def _new_model(
    training: Training,
    encoder: Any,
    names: Mapping[str, tuple[str, ...]],
    encoded: Mapping[str, Any],
    pad_id: int,
) -> Classifier:
    torch.manual_seed(training.seed)
    rates = {task: parts["train"].labels.float().mean(dim=0) for task, parts in encoded.items()}
    # The embedded encoder's word vectors know 250,000 words, most of which training never shows:
    # they stay.
    train_embeddings = training.encoder != "embedded"
    model: Classifier
    if len(names) > 1:
        heads = classifiers.viralbert_heads(encoder.config.hidden_size)
        model = MultiTaskClassifier(
            encoder, heads, "mean", rates=rates, train_embeddings=train_embeddings
        )
    else:
        (task,) = names
        model = PooledClassifier(
            encoder, len(names[task]), rates=rates[task], train_embeddings=train_embeddings
        )
    rows = next(iter(encoded.values()))["train"].rows
    model.centre_on(rows[:300], pad_id)
    return model


def _figures(
    training: Training, parts: Labelled, scores: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Compute the figures of the model and of the baseline on each split.

    Thresholds come from dev, and are cross-fitted on dev itself.
    """
    texts, labels = parts["train"]
    baseline = baselines.tfidf_logistic().fit(texts, labels)
    n_classes = labels.shape[1]
    systems = {
        "model": scores,
        "TF-IDF": {
            split: baseline.predict_proba(parts[split][0])[:, -n_classes:]
            for split in SPLITS.values()
        },
    }
    rule = THRESHOLD_RULES[RULE]
    figures: dict[str, Any] = {}
    for name, probabilities in systems.items():
        tuning = parts["validation"][1], probabilities["validation"]
        for split in training.evaluate:
            truth, p = parts[SPLITS[split]][1], probabilities[SPLITS[split]]
            decided = cross_fit(*tuning, rule) if split == "dev" else decide(p, rule(*tuning))
            figures.setdefault(split, {})[name] = {
                "macro-F1": vars(intervals.macro_f1_interval(truth, decided)),
                "macro-F1 at 0.5": metrics.macro_f1(truth, decide(p, 0.5)),
                "binary macro-F1": metrics.binary_macro_f1(truth, decided),
                "ROC AUC": metrics.mean_roc_auc(truth, p),
            }
    return figures


def _save(
    folder: Path,
    model: Classifier,
    tokenizer: Any,
    tuned: Mapping[str, Thresholds],
    training: Training,
) -> None:
    about = {
        "problem_type": MULTI_LABEL,
        "max_length": training.max_length,
        "head_share": 1.0,
        "note": training.note,
    }
    if not isinstance(model, MultiTaskClassifier):
        (task,) = tuned
        about |= {"task": task, "names": list(tuned[task].names)}
    Predictor(model.eval(), tokenizer, about, tuned).save(folder)
