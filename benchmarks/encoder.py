"""What vocabulary, depth, width and pooling are worth: the embedded encoder in several shapes, on
real emotions.

    .venv/bin/python benchmarks/encoder.py <data folder> [row ...] > benchmarks/encoder.md

Every shape gets the same three epochs on the same 8,000 training texts (settings of `emotions.py`),
scored on the same test rows. A row changes one thing against the second. Macro-F1 is that of shrunk
thresholds.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import emotions as task
import numpy as np
import pandas as pd

from viralbert_utils.data import emotions
from viralbert_utils.encoders import loading
from viralbert_utils.encoders.embedded import embedded_folder
from viralbert_utils.encoders.recipe import Recipe
from viralbert_utils.evaluation import intervals, metrics, thresholds

N_TEXTS = 8_000
BASE = Recipe(pretrained=False)  # other shapes have no pretrained layers
SHAPES = {
    "as shipped, pretrained": (Recipe(), task.POOLING),
    "not pretrained": (BASE, task.POOLING),
    "25,000 words": (replace(BASE, n_words=25_000), task.POOLING),
    "50,000 words": (replace(BASE, n_words=50_000), task.POOLING),
    "no layer": (replace(BASE, n_layers=0), task.POOLING),
    "1 layer": (replace(BASE, n_layers=1), task.POOLING),
    "3 layers": (replace(BASE, n_layers=3), task.POOLING),
    "width 600": (replace(BASE, intermediate=600), task.POOLING),
    "pooling mean": (BASE, "mean"),
    "pooling max": (BASE, "max"),
    "pooling attention": (BASE, "attention"),
    "pooling max+mean": (BASE, "max+mean"),
}


def measure(recipe: Recipe, pooling: str, rows: dict[str, pd.DataFrame]) -> dict[str, object]:
    """Tokens, seconds and figures of one shape."""
    start = time.perf_counter()
    folder = str(embedded_folder(recipe))
    built = time.perf_counter() - start
    tokenizer = loading.load_tokenizer(folder)
    tokens = [t for text in rows["train"]["text"] for t in tokenizer.tokenize(text)]
    start = time.process_time()  # of the processor: other work on the machine doesn't count
    found, *_ = task.train(folder, rows, replace(task.SETTINGS, epochs=3), pooling)
    trained = time.process_time() - start
    labels = {name: emotions.multi_hot(rows[name]["labels"]) for name in ("tune", "test")}
    decided = thresholds.decide(found["test"], thresholds.shrunk(labels["tune"], found["tune"]))
    return {
        "tokens": len(tokenizer),
        "unknown, %": 100 * np.mean([t == "[UNK]" for t in tokens]),
        "pieces, %": 100 * np.mean([t.startswith("##") for t in tokens]),
        "tokens a text": len(tokens) / len(rows["train"]),
        "built, s": built,
        "training, CPU s": trained,
        "macro-F1": str(intervals.macro_f1_interval(labels["test"], decided)),
        "mean ROC AUC": metrics.mean_roc_auc(labels["test"], found["test"]),
    }


def main() -> None:
    """Print the table as Markdown, a row as soon as it is there."""
    rows = task.load_rows(sys.argv[1])
    rows["train"] = rows["train"].sample(N_TEXTS, random_state=0)
    print(
        "# Shapes of the embedded encoder\n\n"
        + " ".join((__doc__ or "").split("\n\n")[2].split())
        + "\n"
    )
    for number, name in enumerate(sys.argv[2:] or SHAPES):
        found = measure(*SHAPES[name], rows)
        if not number:
            print("| shape | " + " | ".join(found) + " |\n|" + "---|" * (len(found) + 1))
        cells = (
            f"{v:.3f}"
            if isinstance(v, float) and v < 10
            else f"{v:.0f}"
            if isinstance(v, float)
            else str(v)
            for v in found.values()
        )
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
