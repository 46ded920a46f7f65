"""Two tasks of unlike size on one tiny encoder, and texts whose classes are tokens."""

import numpy as np
import torch
from transformers import DistilBertConfig, DistilBertModel, XLMRobertaConfig, XLMRobertaModel

from tests import tiny
from viralbert_utils.evaluation import metrics
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier
from viralbert_utils.training import losses
from viralbert_utils.training.settings import Encoded, Settings, Task

SIZES = tiny.config(60, 40, n_layers=3)
HEADS = {
    "virality": Head(("viral",), (32, 16), (0.1, 0.1)),
    "emotions": Head(("a", "b", "c"), (32,), (0.1,)),
}
QUICK = Settings(
    epochs=2, batch_size=16, learning_rate=3e-3, head_factor=3, warmup=0.1, surgery="pcgrad"
)


def make_encoder(kind: str = "bert"):
    torch.manual_seed(1)
    if kind == "distilbert":
        names = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}
        sizes = {"vocab_size": 60, "max_position_embeddings": 40}
        return DistilBertModel(DistilBertConfig(**sizes, **names))
    if kind == "xlm-roberta":
        return XLMRobertaModel(XLMRobertaConfig(**SIZES, pad_token_id=0), add_pooling_layer=False)
    return tiny.bert(**SIZES)


def make_model(pooling: str = "cls", kind: str = "bert", **options) -> MultiTaskClassifier:
    encoder = make_encoder(kind)
    torch.manual_seed(2)
    return MultiTaskClassifier(encoder, HEADS, pooling, train_embeddings=False, **options)


def make_texts(n: int, n_classes: int, seed: int) -> Encoded:
    """Class k is there when token k + 3 is."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, n_classes)) < 0.4).astype(int)
    rows = []
    for flags in labels:
        row = rng.integers(20, 60, rng.integers(4, 20)).tolist() + [
            int(k) + 3 for k in np.flatnonzero(flags)
        ]
        rng.shuffle(row)
        rows.append([1, *row, 2])
    return Encoded(rows, torch.tensor(labels))


def make_tasks(n_virality: int = 40, n_emotions: int = 120) -> dict[str, Task]:
    def auc(logits, labels):
        return {"roc_auc": metrics.mean_roc_auc(labels.numpy(), logits.numpy())}

    bce = losses.binary_cross_entropy()
    return {
        "virality": Task(make_texts(n_virality, 1, 0), make_texts(120, 1, 1), bce, auc),
        "emotions": Task(make_texts(n_emotions, 3, 2), make_texts(60, 3, 3), bce, auc),
    }
