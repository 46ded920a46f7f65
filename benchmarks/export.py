"""Torch, torch compiled, bfloat16, ONNX and int8 side by side: texts a second, size, memory, and
what int8 costs in F1.

    .venv/bin/python benchmarks/export.py [data folder] [encoder shape ...]    # tiny2 base embedded
    (default: all)

Texts of real lengths, in the batches of the predictor; all variants take the same ones in turn, and
the median of each turn's ratio to torch float32 is printed. The shapes of rubert-tiny2 and
ruBert-base have random weights: time does not depend on them. The embedded encoder is trained on
the training split for one epoch (as `benchmarks/emotions.py` does, which takes four), thresholds
are tuned with torch's probabilities on three tenths of the validation split and scored on the rest.
Memory is that of a process of its own that has loaded the model and read some texts.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from viralbert.serving import text_batches
from viralbert.serving.onnx_model import MODEL, OnnxModel
from viralbert_utils.base import tokens
from viralbert_utils.data import emotions, sources
from viralbert_utils.evaluation import intervals, thresholds

SHAPES = {
    "tiny2": {
        "hidden_size": 312,
        "num_hidden_layers": 3,
        "num_attention_heads": 12,
        "intermediate_size": 600,
    },
    "base": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
}
VOCABULARY = {"tiny2": 83_828, "base": 120_138}
N_TEXTS = {"tiny2": 512, "base": 32, "embedded": 512}
TURNS, MAX_LENGTH = 3, 64
Step = Callable[[np.ndarray, np.ndarray], np.ndarray]


def load_rows(source: str) -> dict[str, pd.DataFrame]:
    """Rows to train on, to tune thresholds on, and to score."""
    from viralbert_utils.data import cleaning, splits

    parts = cleaning.clean(
        sources.load("emotions", source), **cleaning.RULES["emotions"] | {"near_threshold": 2}
    ).splits
    if "validation" in parts:
        return splits.by_label(parts["validation"], {"tune": 0.3, "test": 0.7}) | {
            "train": parts["train"]
        }
    return splits.by_label(next(iter(parts.values())), {"train": 0.6, "tune": 0.2, "test": 0.2})


def random_model(shape: str, texts: list[str], folder: Path) -> None:
    """A classifier of a known encoder's shape, with a vocabulary learnt from the texts."""
    import torch
    from transformers import BertConfig, BertModel

    from viralbert_utils.encoders import loading
    from viralbert_utils.models import storage
    from viralbert_utils.models.classifiers import PooledClassifier

    tokenizer = loading.load_tokenizer().train_new_from_iterator(texts, 30_000)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=VOCABULARY[shape], **SHAPES[shape])
    model = PooledClassifier(BertModel(config, add_pooling_layer=False), len(emotions.EMOTIONS))
    storage.save_classifier(
        folder, model, tokenizer, list(emotions.EMOTIONS), max_length=MAX_LENGTH
    )


def trained_model(rows: dict[str, pd.DataFrame], folder: Path) -> None:
    """The embedded encoder after an epoch over the emotions."""
    import emotions as benchmark
    import torch

    from viralbert_utils.base import tokens
    from viralbert_utils.encoders import loading
    from viralbert_utils.lessons import rare_classes
    from viralbert_utils.models import storage
    from viralbert_utils.models.classifiers import PooledClassifier
    from viralbert_utils.training import loop, losses
    from viralbert_utils.training.settings import Encoded, Task

    tokenizer, encoder = loading.load_encoder("embedded")
    parts = {}
    for name in ("train", "tune"):
        hot = torch.tensor(emotions.multi_hot(rows[name]["labels"])).float()
        parts[name] = Encoded(tokens.encode(tokenizer, list(rows[name]["text"]), MAX_LENGTH), hot)
    torch.manual_seed(0)
    rates = parts["train"].labels.mean(0)
    model = PooledClassifier(encoder, len(rates), benchmark.POOLING, benchmark.DROPOUT, rates=rates)
    loss = losses.binary_cross_entropy(
        rare_classes.positive_weights(parts["train"].labels, "power")
    )
    task = Task(parts["train"], parts["tune"], loss, lambda logits, labels: {"roc_auc": 0.0})
    loop.fit(model, task, replace(benchmark.SETTINGS, epochs=1), tokenizer.pad_token_id)
    storage.save_classifier(
        folder, model, tokenizer, list(emotions.EMOTIONS), max_length=MAX_LENGTH
    )


def variants(folder: Path, texts: list[str]) -> tuple[dict[str, Step], Any]:
    """What gives the logits of a batch, under its name, and the tokenizer; exports are written
    beside the folder."""
    import torch

    from viralbert.serving.export import export
    from viralbert_utils.models.inference import array_logits
    from viralbert_utils.models.storage import load_classifier

    model, tokenizer, _ = load_classifier(folder)
    exported = {
        name: export(folder, folder.with_name(name), int8, texts)
        for name, int8 in (("ONNX", False), ("int8", True))
    }
    return {
        "torch": partial(array_logits, model),
        "compiled": partial(array_logits, torch.compile(model, dynamic=True)),
        "bf16": partial(array_logits, model, precision="bfloat16"),
        **{name: own.step for name, own in exported.items()},
    }, tokenizer


def speed(
    steps: dict[str, Step], rows: list[list[int]], pad_id: int
) -> dict[str, tuple[float, float]]:
    """Texts a second, and the ratio to torch float32."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TURNS + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            text_batches.in_batches(step, rows, pad_id)
            spent[name].append(time.perf_counter() - start)
    base = spent["torch"][1:]
    return {
        name: (len(rows) / statistics.median(own[1:]), statistics.median(np.divide(base, own[1:])))
        for name, own in spent.items()
    }


def quality(steps: dict[str, Step], rows: dict[str, pd.DataFrame], tokenizer: Any) -> pd.DataFrame:
    """macro-F1 of each variant, and its difference to torch float32 on the same rows."""
    encoded = {
        part: tokens.encode(tokenizer, list(rows[part]["text"]), MAX_LENGTH)
        for part in ("tune", "test")
    }
    labels = {part: emotions.multi_hot(rows[part]["labels"]) for part in encoded}
    pad_id = tokenizer.pad_token_id
    tuned = thresholds.shrunk(
        labels["tune"], expit(text_batches.in_batches(steps["torch"], encoded["tune"], pad_id))
    )
    found = {
        name: expit(text_batches.in_batches(step, encoded["test"], pad_id))
        for name, step in steps.items()
    }
    decided = {name: thresholds.decide(p, tuned) for name, p in found.items()}
    table = intervals.compare(labels["test"], decided, "torch")
    table["largest difference"] = [
        np.abs(found[name] - found["torch"]).max() for name in table.index
    ]
    return table


def resident(folder: Path) -> float:
    """Megabytes of a process that has loaded the model and read some texts."""
    code = [sys.executable, __file__, "child", str(folder)]
    return float(subprocess.run(code, capture_output=True, text=True, check=True).stdout)


def child(folder: Path) -> None:
    """Load, read, print the resident megabytes."""
    texts = [f"Кот сам открыл дверь и ушёл {'гулять ' * (n % 20)}" for n in range(200)]
    if (folder / MODEL).is_file():
        OnnxModel.load(folder).logits(texts)
    else:
        from viralbert_utils.models.inference import array_logits
        from viralbert_utils.models.storage import load_classifier

        model, tokenizer, _ = load_classifier(folder)
        rows = tokens.encode(tokenizer, texts, MAX_LENGTH)
        text_batches.in_batches(partial(array_logits, model), rows, tokenizer.pad_token_id)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    print(pages * 4096 / 1e6)


def main() -> None:
    """Print a table for each encoder."""
    import torch

    source = sys.argv[1] if len(sys.argv) > 1 else "sample"
    rows = load_rows(source)
    for shape in sys.argv[2:] or [*SHAPES, "embedded"]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "torch"
            start = time.perf_counter()
            if shape == "embedded":
                trained_model(rows, folder)
            else:
                random_model(shape, list(rows["train"]["text"]), folder)
            ready = time.perf_counter() - start
            steps, tokenizer = variants(folder, list(rows["tune"]["text"][: N_TEXTS[shape]]))
            texts = list(rows["test"]["text"][: N_TEXTS[shape]])
            encoded = tokens.encode(tokenizer, texts, MAX_LENGTH)
            table = pd.DataFrame.from_dict(
                speed(steps, encoded, tokenizer.pad_token_id),
                "index",
                columns=["texts/s", "times torch"],
            ).round(2)
            for name in ("torch", "ONNX", "int8"):
                own = folder.with_name(name)
                table.loc[name, "MB on disk"] = (
                    sum(f.stat().st_size for f in own.rglob("*") if f.is_file()) // 1e6
                )
                table.loc[name, "MB resident"] = resident(own) // 1
            mean = np.mean([len(row) for row in encoded])
            print(
                f"\n{shape}, {source}: {len(texts)} texts of {mean:.1f} tokens, "
                f"{torch.get_num_threads()} threads, "
                f"{TURNS} turns, {ready:.0f} s until trained"
            )
            print(table.to_string(), flush=True)
            if shape == "embedded":
                print(
                    f"macro-F1 on {len(rows['test'])} rows, thresholds of torch's probabilities; "
                    "difference to torch"
                )
                print(quality(steps, rows, tokenizer).round(4).to_string(), flush=True)


if __name__ == "__main__":
    child(Path(sys.argv[2])) if sys.argv[1:2] == ["child"] else main()
