"""Training from the command line, from data to a judged model.

What comes out are the model, its thresholds, and figures with intervals and a baseline beside them.

The functions of lessons 01 to 04 in one row. Under torchrun (`processes`) all processes train,
the first one writes.
"""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from viralbert import distillation
from viralbert.environment import environment
from viralbert.evaluate import figures, most_probable
from viralbert.labelled import (
    CLASSES,
    ONE_CLASS,
    SAME_ROWS,
    Labelled,
    Rows,
    maps_emotions,
    read,
)
from viralbert.serving.predictor import Predictor, probabilities
from viralbert.terminal import counted
from viralbert.trainings import SPLITS, Training, finished, keep_to, recipe
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import locked, write_whole
from viralbert_utils.base.tokens import encode
from viralbert_utils.encoders.loading import load_encoder
from viralbert_utils.evaluation import baselines
from viralbert_utils.evaluation.thresholds import (
    MULTI_LABEL,
    SINGLE_LABEL,
    Thresholds,
    cross_fit,
    decide,
)
from viralbert_utils.evaluation.thresholds import RULES as THRESHOLD_RULES
from viralbert_utils.lessons import frozen, rare_classes
from viralbert_utils.lessons.stages import Stage, fit_stages
from viralbert_utils.models import classifiers, inference
from viralbert_utils.models.classifiers import MultiTaskClassifier, PooledClassifier
from viralbert_utils.models.storage import Classifier
from viralbert_utils.training import losses, processes
from viralbert_utils.training.checkpoints import load_state
from viralbert_utils.training.settings import Encoded, Settings, Task

CACHE_GIB = 8.0  # most that frozen layers may leave on the disk for a task and split
RULE = "shrunk"
DEV_CROSS_FITTED = (
    "dev: each text is judged by thresholds from other texts of dev; the saved ones come from all "
    "of dev, so viralbert evaluate gives other figures there"
)


def run(training: Training, output: Path, show_progress: bool = False) -> dict[str, Any]:
    """Train and evaluate; a stopped run goes on with its next epoch.

    A finished training is not repeated.

    A second training into the same folder waits for the first, and finds what it has left.

    Args:
        training: Encoder, data and settings.
        output: Gets `model/`, `metrics.json`, `history.csv` and, if wished, `model-last/` and
            `onnx/`.
        show_progress: A progress bar for each epoch.

    Returns:
        What is in `metrics.json`; nothing in a process that does not write it.

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
        return {} if processes.rank() else done
    _check_rows(training, sets)
    tokenizer, encoder = _encoder(training)
    encoded = {
        task: {
            split: Encoded(
                encode(tokenizer, rows.texts, training.max_length), _targets(task, rows.labels)
            )
            for split, rows in parts.items()
        }
        for task, parts in sets.items()
    }
    tasks = {
        task: Task(parts["train"], parts["validation"], _loss(training, task, sets[task]["train"]))
        for task, parts in encoded.items()
    }
    model = _new_model(training, encoder, sets, encoded, tokenizer.pad_token_id)
    started_by, checkpoints = None, output / "checkpoints"
    with processes.first_alone():
        if not processes.rank():
            started_by = keep_to(output, training, files)
    history, last = fit_stages(
        model,
        tasks if len(tasks) > 1 else {"": next(iter(tasks.values()))},
        _stages(training, len(sets)),
        tokenizer.pad_token_id,
        checkpoints,
        cached=_fits(encoded, encoder.config.hidden_size),
        show_progress=show_progress,
    )
    if processes.rank():
        return {}
    seconds = time.perf_counter() - started
    scores = {"model": _save_and_ask(training, output / "model", model, tokenizer, sets, encoded)}
    if training.keep == "both":
        load_state(model, last)
        scores["last epoch"] = _save_and_ask(
            training, output / "model-last", model, tokenizer, sets, encoded
        )
    if training.export_onnx:
        from viralbert.serving.export import export

        export(output / "model", output / "onnx")
    write_whole(output / "history.csv", _history(history, training).to_csv(index=False))
    result = {
        "recipe": recipe(training),
        "figures": {
            task: _figures(
                training, task, sets[task], {system: own[task] for system, own in scores.items()}
            )
            for task in sets
        },
        "rows": {
            task: {split: len(rows.texts) for split, rows in parts.items()}
            for task, parts in sets.items()
        },
        "files": files,
        "notes": _notes(training, sets),
        "seconds": round(seconds, 1),
        "processes": processes.n_processes(),
        "environment": environment(),
    }
    write_whole(output / "metrics.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    shutil.rmtree(checkpoints, ignore_errors=True)
    if started_by is not None:
        started_by.unlink()
    return result


def _notes(training: Training, tasks: Iterable[str]) -> list[str]:
    """What has to be known to read the figures."""
    notes = [SAME_ROWS] if "cedr" in tasks and maps_emotions(training) else []
    has_thresholds = any(task not in ONE_CLASS for task in tasks)
    return [*notes, DEV_CROSS_FITTED] if has_thresholds and "dev" in training.evaluate else notes


def _encoder(training: Training) -> tuple[Any, Any]:
    """Tokenizer and encoder; refused if the training asks for more than the encoder has."""
    with processes.first_alone():  # it may have to be built or fetched
        tokenizer, encoder = load_encoder(training.encoder)
    training.check_length(tokenizer, encoder)
    _check_layers(training, encoder)
    return tokenizer, encoder


def _check_rows(training: Training, sets: Mapping[str, Labelled]) -> None:
    """Refuse to train where a split that is needed is empty: it would show at the end."""
    needed = {"train", "validation", *(SPLITS[name] for name in training.evaluate)}
    for task, parts in sets.items():
        n_rows = {
            split: len(parts[split].texts) if split in parts else 0
            for split in ("train", "validation", "test")
        }
        if any(n_rows[split] < 1 for split in needed):
            found = ", ".join(f"{n} of {split}" for split, n in n_rows.items())
            raise DataError(
                f"{task}: expected at least 1 row to train on, to tune on (validation) and to "
                f"judge by (test), found {found}; give more rows"
            )


def _check_layers(training: Training, encoder: Any) -> None:
    """Refuse a number of layers that the encoder has not."""
    if training.top_layers is None and not training.frozen_epochs:
        return
    try:
        n_layers = len(frozen.layers_of(encoder))
    except ValueError as error:
        raise DataError(f"{error}; leave --frozen-epochs and --top-layers out") from None
    if (training.top_layers or 0) > n_layers:
        raise DataError(
            f"top_layers is {training.top_layers}, and the encoder {training.encoder!r} has "
            f"{n_layers}; expected as many at most"
        )


def _targets(task: str, labels: np.ndarray) -> torch.Tensor:
    """Labels as the task's loss reads them."""
    return torch.tensor(labels.argmax(axis=1) if task in ONE_CLASS else labels)


def _loss(training: Training, task: str, rows: Rows) -> losses.Loss:
    """The loss of a task; rare classes count as `pos_weight` says."""
    labels = torch.tensor(rows.labels)
    weight = None
    if labels.shape[1] > 1:
        weight = rare_classes.positive_weights(labels, training.pos_weight)
    if task not in ONE_CLASS:
        return losses.binary_cross_entropy(weight)
    if weight is not None and processes.n_processes() > 1:
        raise DataError(
            f"dataset {task} with --pos-weight is trained by one process: the texts of a batch "
            "weigh differently, and several processes would not know it; call it without "
            "torchrun, or leave --pos-weight out"
        )
    return losses.cross_entropy(weight)


def _stages(training: Training, n_tasks: int) -> list[Stage]:
    """The heads alone, then what else trains; each is left out if it has no epoch."""
    settings = Settings(
        epochs=training.epochs - training.frozen_epochs,
        batch_size=training.batch_size,
        learning_rate=training.rate,
        head_factor=1 / training.layer_share,
        warmup=training.warmup,
        seed=training.seed,
        schedule=training.schedule,
        keep="last" if training.keep == "last" else "best",
        surgery="pcgrad" if n_tasks > 1 else "none",
    )
    frozen = replace(settings, epochs=training.frozen_epochs)
    if training.frozen_rate:
        # Settings name the encoder's rate, which is a share of the heads'.
        frozen = replace(frozen, learning_rate=training.frozen_rate * training.layer_share)
    stages = Stage(frozen, 0), Stage(settings, training.top_layers)
    return [stage for stage in stages if stage.settings.epochs]


def _fits(encoded: Mapping[str, Mapping[str, Encoded]], width: int) -> bool:
    """Whether what frozen layers give may be kept in files, a number in two bytes."""
    n_tokens = max(sum(part.lengths) for parts in encoded.values() for part in parts.values())
    return 2 * n_tokens * width <= CACHE_GIB * 2**30


def _history(history: pd.DataFrame, training: Training) -> pd.DataFrame:
    """The history by epochs of the whole training, with the columns of ViralBERT v2's table."""
    top = training.top_layers
    later = "all" if top is None else f"heads and {counted(top, 'top layer')}"
    trained = [
        "heads" if stage < 2 and training.frozen_epochs else later for stage in history["stage"]
    ]
    names = {"loss": "val_loss", "virality.loss": "val_pop", "emotions.loss": "val_emo"}
    table = history.assign(epoch=range(1, len(history) + 1), trained=trained).rename(columns=names)
    first = [name for name in ("epoch", "train_loss", *names.values()) if name in table]
    return table[first + [name for name in table if name not in (*first, "stage")]]


def _save_and_ask(
    training: Training,
    folder: Path,
    model: Classifier,
    tokenizer: Any,
    sets: Mapping[str, Labelled],
    encoded: Mapping[str, Mapping[str, Encoded]],
) -> dict[str, dict[str, np.ndarray]]:
    """Save the model with thresholds tuned on dev; task -> split -> its probabilities."""
    scores, tuned = {}, {}
    for task, parts in encoded.items():
        scores[task] = _scores(model, task, parts, tokenizer.pad_token_id)
        if task not in ONE_CLASS:
            tuned[task] = Thresholds.tune(
                CLASSES[task], sets[task]["validation"].labels, scores[task]["validation"], RULE
            )
    _save(folder, model, tokenizer, tuned, training)
    return scores


def _scores(
    model: Classifier, task: str, parts: Mapping[str, Encoded], pad_id: int
) -> dict[str, np.ndarray]:
    """Split -> probabilities `(n_texts, n_classes)`."""
    which: dict[str, Any] = {"task": task} if isinstance(model, MultiTaskClassifier) else {}
    problem = SINGLE_LABEL if task in ONE_CLASS else MULTI_LABEL
    return {
        split: probabilities(
            inference.predict_logits(model, parts[split], pad_id, **which).double().numpy(), problem
        )
        for split in SPLITS.values()
    }


def _new_model(
    training: Training,
    encoder: Any,
    sets: Mapping[str, Labelled],
    encoded: Mapping[str, Any],
    pad_id: int,
) -> Classifier:
    torch.manual_seed(training.seed)
    rates = {
        task: torch.tensor(parts["train"].labels).float().mean(dim=0)
        for task, parts in sets.items()
    }
    # The embedded encoder's word vectors know 250,000 words, most of which training never shows:
    # they stay.
    train_embeddings = training.encoder != "embedded"
    model: Classifier
    if len(sets) > 1:
        heads = classifiers.viralbert_heads(encoder.config.hidden_size)
        model = MultiTaskClassifier(
            encoder, heads, training.pooling, rates=rates, train_embeddings=train_embeddings
        )
    else:
        (task,) = sets
        model = PooledClassifier(
            encoder,
            len(CLASSES[task]),
            training.pooling,
            rates=None if task in ONE_CLASS else rates[task],
            train_embeddings=train_embeddings,
        )
    rows = next(iter(encoded.values()))["train"].rows
    model.centre_on(rows[:300], pad_id)
    return model


def _figures(
    training: Training, task: str, parts: Labelled, scores: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, Any]:
    """Compute the figures of the model and of the baseline on each split.

    Thresholds come from dev, and are cross-fitted on dev itself.
    """
    train = parts["train"]
    with warnings.catch_warnings():  # a class that no text has gets the answer 0
        warnings.filterwarnings("ignore", "Label (not )?.* is present in all training examples")
        baseline = baselines.tfidf_logistic().fit(train.texts, train.labels)
    n_classes = train.labels.shape[1]
    systems = dict(scores) | {
        "TF-IDF": {
            split: baseline.predict_proba(parts[split].texts)[:, -n_classes:]
            for split in SPLITS.values()
        },
    }
    rule = THRESHOLD_RULES[RULE]
    found: dict[str, Any] = {}
    for name, by_split in systems.items():
        tuning = parts["validation"].labels, by_split["validation"]
        for split in training.evaluate:
            rows, p = parts[SPLITS[split]], by_split[SPLITS[split]]
            one_class = task in ONE_CLASS
            if one_class:
                decided = most_probable(p)
            else:
                decided = cross_fit(*tuning, rule) if split == "dev" else decide(p, rule(*tuning))
            found.setdefault(split, {})[name] = figures(rows, p, decided, CLASSES[task], one_class)
    return found


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
        # Combined sets are one task, whose thresholds bear its name.
        (task,) = tuned or (training.dataset,)
        about |= {"task": task, "names": list(CLASSES[task])}
        if task in ONE_CLASS:
            about["problem_type"] = SINGLE_LABEL
    Predictor(model.eval(), tokenizer, about, tuned).save(folder)
