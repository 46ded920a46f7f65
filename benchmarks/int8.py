"""The course's own eight-bit graph beside ONNX Runtime's `quantize_static`, on the sample's test
texts.

    .venv/bin/python benchmarks/int8.py [predictor folder]

All four forms of one model compute the same texts in turns, so their seconds of CPU time can be
compared. `quantize_static` gets the same calibration texts, one at a time, because it would count
padding. With weights of eight bits its sums may overflow on a processor without VNNI; with seven
(`reduce_range`) they cannot, as in the course's own graph.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from viralbert.serving import export
from viralbert.serving.onnx_model import KEY, MODEL, TOKENIZER, OnnxModel, runtime
from viralbert.serving.predictor import Predictor
from viralbert_utils.base import tokens
from viralbert_utils.base.files import ROOT, write_sums
from viralbert_utils.data.emotions import multi_hot
from viralbert_utils.data.sources import load_tables
from viralbert_utils.evaluation.metrics import macro_f1

N_TURNS = 9


def one_by_one(model: OnnxModel) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of the model for each calibration text."""
    settings, pad_id = model.about["settings"], model.about["pad_id"]
    texts = export.TEXTS.read_text(encoding="utf-8").splitlines()
    cut = {name: settings[name] for name in ("max_length", "head_share") if name in settings}
    for row in tokens.encode(model.tokenizer, texts, **cut):
        ids, mask = tokens.pad([row], pad_id)
        yield {"input_ids": ids, "attention_mask": mask}


def quantize(source: Path, target: Path, seven_bits: bool) -> None:
    """Write a float export again as `quantize_static` makes it."""
    runtime()
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs = one_by_one(OnnxModel.load(source))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.inputs, None)

    target.mkdir()
    kinds = ["MatMul", "Gather"]
    quantization.quantize_static(
        source / MODEL,
        target / "quantized",
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=kinds,
        per_channel=True,
        reduce_range=seven_bits,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={
            "OpTypesToExcludeOutputQuantization": kinds,
            "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1, "Gather": 0},
        },
    )
    graph = onnx.load(target / "quantized")
    (target / "quantized").unlink()
    about = {
        entry.key: entry.value
        for entry in onnx.load(source / MODEL, load_external_data=False).metadata_props
    }
    onnx.helper.set_model_props(graph, {KEY: about[KEY]})
    onnx.save(graph, target / MODEL, save_as_external_data=True, location=f"{MODEL}.data")
    shutil.copy(source / TOKENIZER, target)
    write_sums(target)


def main(source: str = str(ROOT / "runs/sample/viralbert")) -> None:
    """Print a line for each form."""
    test = load_tables(ROOT / "runs/sample/tables/emotions")["test"]
    texts = list(test["text"])
    labels = multi_hot(test["labels"], 28)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch, name) for name in ("float", "own", "static", "static7")}
        export.export(source, folders["float"])
        export.export(source, folders["own"], int8=True)
        for name in ("static", "static7"):
            quantize(folders["float"], folders[name], seven_bits=name == "static7")
        models = {name: Predictor.load(folder) for name, folder in folders.items()}
        answers = {name: next(model._windows(texts)) for name, model in models.items()}
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(N_TURNS):
            for name, model in models.items():
                began = time.process_time()
                next(model._windows(texts))
                seconds[name].append(time.process_time() - began)
    tasks = models["float"].tasks
    probabilities = {name: np.hstack(list(found.values())) for name, found in answers.items()}
    decisions = {
        name: {
            task: own.thresholds.apply(found[task], own.names)
            for task, own in tasks.items()
            if own.thresholds
        }
        for name, found in answers.items()
    }
    print(f"{len(texts)} texts, {N_TURNS} turns; probabilities and decisions beside float32's")
    for name in models:
        off = probabilities[name] - probabilities["float"]
        flips = sum(
            int((decided != decisions["float"][task]).sum())
            for task, decided in decisions[name].items()
        )
        ratio = statistics.median(seconds["float"]) / statistics.median(seconds[name])
        print(
            f"{name:>8}: {ratio:.2f} times the speed of float32; RMS {np.sqrt((off**2).mean()):.4f}"
            f", largest {np.abs(off).max():.3f}, {flips} decisions of {off.size:,} differ; "
            f"macro-F1 {macro_f1(labels, decisions[name]['emotions']):.4f}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
