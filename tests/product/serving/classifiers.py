"""A classifier of each kind that the course writes."""

from pathlib import Path

import numpy as np
import torch

from tests.product.serving.small_models import make_encoder, make_tokenizer, thresholds
from viralbert.cli import main
from viralbert.serving.export import export
from viralbert.serving.predictor import Predictor
from viralbert_utils.data.emotions import CEDR_CLASSES, EMOTIONS
from viralbert_utils.evaluation.calibration import Calibration
from viralbert_utils.evaluation.thresholds import MULTI_LABEL, SINGLE_LABEL
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier, PooledClassifier
from viralbert_utils.models.storage import save_classifier

TEXTS = [
    "Кот открыл дверь сам.",
    "Дождь.",
    "Мы весь день красили забор и никому об этом не сказали!",
    "",
    "Ура 🎉",
]
REVIEWS = ["bad", "neutral", "good"]
CLASSES = {
    "virality": ("viral",),
    "emotions": EMOTIONS,
    "cedr": CEDR_CLASSES,
    "reviews": tuple(REVIEWS),
}
# What each model knows, in the order of its outputs.
KINDS = {
    "two tasks": ["emotions", "virality"],
    "two tasks without thresholds": ["virality", "emotions"],
    "emotions": ["emotions"],
    "virality": ["virality"],
    "cedr": ["cedr"],
    "reviews": ["reviews"],
    "three tasks": ["virality", "emotions", "cedr"],
}
CALIBRATION = Calibration(np.array([0.7]), np.array([-0.2]))


def pooled(names) -> PooledClassifier:
    model = PooledClassifier(make_encoder(), len(names), "mean").eval()
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model


def several(tasks) -> MultiTaskClassifier:
    heads = {task: Head(CLASSES[task], (8,), (0.1,)) for task in tasks}
    model = MultiTaskClassifier(make_encoder(), heads, "mean").eval()
    for head in model.heads.values():
        torch.nn.init.normal_(head[-1].weight, std=0.5)
    return model


def write_all(encoder: str, root: Path) -> None:
    """`<kind>/torch` and `<kind>/onnx`, each written as the course writes it."""
    tokenizer, about = make_tokenizer(), {"max_length": 24, "head_share": 0.5}
    for kind in ("two tasks", "three tasks"):
        own = {task: thresholds(CLASSES[task], 0.4 + 0.1 * k) for k, task in enumerate(KINDS[kind])}
        Predictor(several(KINDS[kind]), tokenizer, about, own, CALIBRATION).save(
            root / kind / "torch"
        )
    kind = "two tasks without thresholds"  # as lesson 03
    save_classifier(root / kind / "torch", several(KINDS[kind]), tokenizer, **about)
    for task in ("emotions", "virality"):
        own = {"task": task, "problem_type": MULTI_LABEL, "names": list(CLASSES[task])} | about
        Predictor(
            pooled(CLASSES[task]), tokenizer, own, {task: thresholds(CLASSES[task], 0.45)}
        ).save(root / task / "torch")
    own = {"task": "reviews", "problem_type": SINGLE_LABEL} | about  # as lesson 02
    save_classifier(root / "reviews" / "torch", pooled(REVIEWS), tokenizer, REVIEWS, **own)
    command = [
        "train",
        "--dataset",
        "cedr",
        "--max-rows",
        "120",
        "--epochs",
        "1",
        "--encoder",
        encoder,
        "--max-length",
        "24",
        "--lr",
        "0.001",
        "--output",
        str(root / "trained"),
    ]
    assert main(command) == 0
    (root / "cedr").mkdir()
    (root / "trained" / "model").rename(root / "cedr" / "torch")
    for kind in KINDS:
        export(root / kind / "torch", root / kind / "onnx", texts=TEXTS)


def close(found, wanted, off: float = 1e-5) -> bool:
    """Whether two answers are the same, numbers nearly so."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(
            close(found[k], wanted[k], off) for k in wanted
        )
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(close, found, wanted, [off] * len(wanted)))
    return abs(found - wanted) < off if isinstance(wanted, float) else found == wanted
