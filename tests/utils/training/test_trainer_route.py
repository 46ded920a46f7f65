"""`benchmarks/trainer.py`: the Trainer of transformers with the loss of the course."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks import trainer as route
from viralbert_utils.data.emotions import EMOTIONS
from viralbert_utils.training import losses

QUICK = {"use_cpu": True, "disable_tqdm": True, "num_train_epochs": 1}


@pytest.fixture(scope="module")
def encoder(save_tiny_encoder, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    save_tiny_encoder(folder)
    return str(folder)


def make_rows(n: int = 24) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("абвгдежзик"), rng.integers(1, 9))) for _ in range(n)]
    labels = [sorted({int(k) for k in rng.integers(0, 28, 2)}) for _ in range(n)]
    return pd.DataFrame({"text": texts, "labels": labels})


def test_its_loss_is_ours(encoder, tmp_path):
    parts = {"train": make_rows(), "validation": make_rows(8)}
    made = route.make_trainer(encoder, parts, tmp_path, **QUICK)
    made.model.eval()
    rows = made.train_dataset
    batch = made.data_collator([rows[k] for k in range(5)])
    assert (batch["attention_mask"] == 0).any(), "padding is among it"
    labels = torch.from_numpy(rows.labels)
    weight = (24 / (28 * labels.sum(dim=0).clamp(min=1))).clamp(0.1, 10)
    assert len(set(weight.tolist())) > 1
    logits = made.model(batch["input_ids"], batch["attention_mask"]).logits
    ours = losses.binary_cross_entropy(weight)(logits, batch["labels"])
    plain = losses.binary_cross_entropy()(logits, batch["labels"])
    theirs = made.compute_loss(made.model, dict(batch))
    assert float(theirs.detach()) == pytest.approx(float(ours.detach()), abs=1e-6)
    assert float(theirs.detach()) != pytest.approx(float(plain.detach()), rel=0.01)
    # The evaluation of an epoch, too: the mean over the validation rows.
    every = made.data_collator([made.eval_dataset[k] for k in range(8)])
    with torch.inference_mode():
        logits = made.model(every["input_ids"], every["attention_mask"]).logits
    expected = float(losses.binary_cross_entropy(weight)(logits, every["labels"]))
    assert made.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)


def test_it_runs_on_the_sample_and_leaves_a_folder_of_transformers(encoder, tmp_path):
    figures = route.run("sample", encoder, tmp_path / "model", max_rows=96, **QUICK)
    assert set(figures) == {"loss", "macro_f1_at_0.5", "macro_f1"}
    assert 0 < figures["loss"] < 3 and 0 <= figures["macro_f1"] <= 1
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert list(model.config.id2label.values()) == list(EMOTIONS)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == 15
    kept = json.loads((tmp_path / "model" / "thresholds.json").read_text(encoding="utf-8"))
    assert list(kept) == list(EMOTIONS) and all(0 <= value <= 1 for value in kept.values())
