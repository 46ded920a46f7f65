"""Models that know nothing, as torch and as graphs: small enough to be made for a test."""

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from tests import tiny
from viralbert.serving import export
from viralbert_utils.evaluation.thresholds import Thresholds

TEXTS = [
    "Кот открыл дверь сам.",
    "Дождь.",
    "Мы весь день красили забор и никому об этом не сказали!",
    "Ура 🎉",
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # in another order in each process
    vocabulary = {name: i for i, name in enumerate(["[PAD]", "[CLS]", "[SEP]", *letters])}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def thresholds(names, value) -> Thresholds:
    return Thresholds(tuple(names), (value,) * len(names), "one", 10, (5,) * len(names), 0.0, "0")


SIZES = tiny.config(300, 64, 32, 2)
MANY = [f"{text} И ещё {k} раз{'а' * (k % 7)}." for k in range(20) for text in TEXTS]


def make_encoder(kind: str = "bert"):
    torch.manual_seed(0)
    if kind == "bert":
        return tiny.bert(**SIZES)
    config = XLMRobertaConfig(pad_token_id=0, **SIZES)
    return XLMRobertaModel(config, add_pooling_layer=False)


def traced(patch: pytest.MonkeyPatch, root) -> None:
    """Tracing takes seconds: the graph that stands in the export is the same."""
    patch.setattr(export, "_graph", lambda *_: onnx.load(root / "float" / "model.onnx"))


def table(found) -> np.ndarray:
    return np.array([[one.viral_score, *one.probabilities.values()] for one in found])
