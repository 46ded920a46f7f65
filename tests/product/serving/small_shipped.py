"""A stand-in for the model that comes with the package: the real layers, and few words."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from tests.product.serving.small_models import TEXTS, thresholds
from viralbert.serving.predictor import Predictor
from viralbert_utils.data.emotions import CEDR_CLASSES, EMOTIONS
from viralbert_utils.encoders import embedded, vocabulary
from viralbert_utils.encoders.loading import load_encoder
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier

MOVED = ("кот", "дождь", "забор", "дверь", "##!")  # whose vectors "training" has changed
TASKS = {"emotions": EMOTIONS, "cedr": CEDR_CLASSES, "virality": ("viral",)}


def few_words() -> tuple[list[str], np.ndarray, np.ndarray]:
    """In the place of Navec's 250,000 words, whose reading takes ten seconds."""
    moods = Path(vocabulary.__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    lines = [*yaml.safe_load(moods).values(), *TEXTS]  # an emoji borrows the vectors of its words
    words = sorted({word.strip(".!").lower() for line in lines for word in line.split()})
    vectors = np.random.default_rng(0).normal(0, 0.35, (len(words), 300)).astype(np.float32)
    return words, np.arange(len(words), 0, -1.0), vectors


def write_trained(folder: Path) -> None:
    """A model of three tasks whose layers and some word vectors are no longer the encoder's."""
    tokenizer, encoder = load_encoder("embedded", "cpu")
    heads = {task: Head(names) for task, names in TASKS.items()}
    torch.manual_seed(0)
    model = MultiTaskClassifier(encoder, heads, "attention+max+mean", 0.4).eval()
    with torch.no_grad():
        words = encoder.get_input_embeddings().weight
        for name, weight in model.named_parameters():
            if name.startswith("heads"):
                weight.normal_(std=0.05)
            elif weight is not words:
                weight.add_(torch.randn_like(weight) * 0.01)
        rows = tokenizer.convert_tokens_to_ids(list(MOVED))
        assert tokenizer.unk_token_id not in rows
        words[rows] += torch.randn(len(rows), 300) * 0.1
    own = {task: thresholds(names, 0.5) for task, names in TASKS.items()}
    about = {"max_length": 24, "head_share": 1.0, "note": "stand-in"}
    Predictor(model, tokenizer, about, own).save(folder)


def main(packed: str, *arguments: str) -> int:
    """The command in a process of its own, with a packed model as the one of the package."""
    from functools import partial

    from viralbert.cli import main as command
    from viralbert.serving import shipped

    embedded.load_navec = few_words
    shipped.folder = partial(shipped.folder, packed=Path(packed))  # type: ignore[assignment]
    if os.environ.get("KILLED") == "while it is put together":
        shipped.shutil.copy = lambda *_: os.kill(os.getpid(), 9)  # type: ignore[assignment]
    return command(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
