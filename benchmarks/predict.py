"""How fast the shipped model answers: cold start, one text, a list, beside a transformers pipeline.

    .venv/bin/python benchmarks/predict.py <data folder> [folder of a trained model]

The data folder holds the emotions, whose texts have real lengths. The model is the shipped one
unless another is named. All ways run in turns in one process on one machine; what counts is their
ratio. Beside seconds by the clock stand those of the processor, which other work on the machine
disturbs less.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from moments import seconds_of

from viralbert.serving import shipped
from viralbert.serving.export import export
from viralbert.serving.predictor import ViralBERT
from viralbert_utils.data import sources

N_TEXTS, N_TURNS, N_STARTS = 600, 5, 7


def pipeline_of(bert: ViralBERT) -> Any:
    """A transformers pipeline around the same encoder, with one plain layer on it."""
    from transformers import AutoModelForSequenceClassification, pipeline

    config = bert.model.encoder.config
    config.num_labels = sum(len(task.names) for task in bert.tasks.values())
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.base_model.load_state_dict(bert.model.encoder.state_dict(), strict=False)
    options = {"truncation": True, "max_length": bert.settings["max_length"], "top_k": None}
    return pipeline(
        "text-classification", model=model, tokenizer=bert.tokenizer, device="cpu", **options
    )


def beside_pipeline(texts: list[str], bert: ViralBERT, exported: ViralBERT) -> None:
    """Print milliseconds a text of each way, and how many times as fast as the pipeline it is."""
    pipe = pipeline_of(bert)
    slow = "pipeline, text by text"
    ways: dict[str, Callable[[], Any]] = {
        slow: lambda: [pipe(text) for text in texts],
        "predict, text by text": lambda: [bert.predict(text) for text in texts],
        "predict, the list": lambda: bert.predict(texts),
        "predict, the list, bf16": lambda: replace(bert, precision="bfloat16").predict(texts),
        "exported int8, text by text": lambda: [exported.predict(text) for text in texts],
        "exported int8, the list": lambda: exported.predict(texts),
    }
    for way in ways.values():
        way()
    words = statistics.median(len(text.split()) for text in texts)
    print(f"{len(texts):,} texts, median {words:g} words; load before {os.getloadavg()[0]:.1f}")
    for about, clock in (("clock", time.perf_counter), ("processor", time.process_time)):
        turns = [
            {name: seconds_of(way, clock) for name, way in ways.items()} for _ in range(N_TURNS)
        ]
        for name in ways:
            ratios = sorted(turn[slow] / turn[name] for turn in turns)
            each = statistics.median(turn[name] for turn in turns) / len(texts)
            print(
                f"{name}: {1000 * each:.2f} ms a text by the {about}, ratio "
                f"{statistics.median(ratios):.1f} ({ratios[0]:.1f}-{ratios[-1]:.1f})"
            )


def cold_starts(folder: Path) -> None:
    """Print the seconds of `viralbert predict` in a new process, the cache being warm."""
    command = [sys.executable, "-m", "viralbert", "predict", "Кот сам открыл дверь.", "--model"]
    seconds = sorted(
        seconds_of(lambda: subprocess.run([*command, str(folder)], check=True, capture_output=True))
        for _ in range(N_STARTS)
    )
    print(
        f"cold start to the answer, {folder.name}: median {statistics.median(seconds):.2f} s "
        f"({seconds[0]:.2f}-{seconds[-1]:.2f})"
    )


def size_of(folder: Path) -> float:
    """Megabytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main(source: str, model: str = "") -> None:
    """Print everything."""
    with tempfile.TemporaryDirectory() as scratch:
        if model:
            trained, small = Path(model), Path(scratch) / "int8"
            export(trained, small, int8=True)
        else:
            trained, small = shipped.folder(precision="float32"), shipped.folder()
            print(f"{shipped.PACKED.name} in the package: {size_of(shipped.PACKED):.1f} MB")
        print(f"trained form {size_of(trained):.0f} MB, exported {size_of(small):.0f} MB")
        cold_starts(small)
        cold_starts(trained)
        bert, exported = ViralBERT.load(trained, "cpu", "float32"), ViralBERT.load(small)
        table = sources.load("emotions", source).splits
        texts = [str(t) for t in table.get("validation", table["train"])["text"][:N_TEXTS]]
        beside_pipeline(texts, bert, exported)
        exact, near = (np.concatenate(list(b.scores(texts).emotions)) for b in (bert, exported))
        print(f"largest difference of a probability by int8: {abs(exact - near).max():.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
