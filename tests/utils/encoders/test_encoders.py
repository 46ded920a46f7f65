import math
import shutil
from types import SimpleNamespace

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from tests import tiny
from viralbert_utils.base import tokens
from viralbert_utils.base.errors import DataError
from viralbert_utils.data import sources
from viralbert_utils.encoders import loading, pooling
from viralbert_utils.encoders.pooling import POOLINGS

TEXTS = sources.load("emotions").splits["all"]["text"].tolist()[:300]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def save_tokenizer(core: Tokenizer, folder, **special: str) -> None:
    PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=64, **special).save_pretrained(
        folder
    )


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    """A random BERT with a WordPiece vocabulary, saved as on the hub."""
    from tokenizers import processors

    folder = tmp_path_factory.mktemp("bert")
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=500, special_tokens=special)
    )
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    save_tokenizer(
        core, folder, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    tiny.bert(core.get_vocab_size(), 64, pooler=True, **SIZES).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_xlm_roberta(tmp_path_factory):
    """A random XLM-RoBERTa with a SentencePiece (Unigram) vocabulary."""
    from tokenizers import decoders, processors

    folder = tmp_path_factory.mktemp("xlmr")
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(TEXTS), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(folder / "sp"), vocab_size=600, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "sp.model"))
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [
        (pieces.id_to_piece(i), pieces.get_score(i)) for i in range(3, pieces.get_piece_size())
    ]
    core = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    core.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    save_tokenizer(
        core, folder, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>"
    )
    config = XLMRobertaConfig(
        vocab_size=len(vocabulary), max_position_embeddings=66, pad_token_id=1, **SIZES
    )
    torch.manual_seed(0)
    XLMRobertaModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["tiny_bert", "tiny_xlm_roberta"])
def loaded(request):
    return loading.load_encoder(str(request.getfixturevalue(request.param)))


def forward(tokenizer, model, rows, how="mean", extra=0):
    ids, mask = loading.pad(rows, tokenizer.pad_token_id)
    if extra:
        ids = torch.nn.functional.pad(ids, (0, extra), value=tokenizer.pad_token_id)
        mask = torch.nn.functional.pad(mask, (0, extra))
    with torch.inference_mode():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        queries = torch.linspace(-1, 1, 2 * hidden.shape[-1]).reshape(2, -1)
        return pooling.pool(hidden, mask, how, queries)


@pytest.mark.parametrize("how", POOLINGS)
def test_padding_never_changes_a_vector(loaded, how):
    tokenizer, model = loaded
    rows = tokens.encode(tokenizer, TEXTS[:20], 40)
    together = forward(tokenizer, model, rows, how, extra=7)
    alone = torch.cat([forward(tokenizer, model, [row], how) for row in rows])
    assert (together - alone).abs().max() < 1e-5


def test_pooling_by_hand():
    hidden = torch.tensor([[[1.0, -5.0], [3.0, 1.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pooling.pool(hidden, mask, "cls").tolist() == [[1, -5]]
    assert pooling.pool(hidden, mask, "mean").tolist() == [[2, -2]]
    assert pooling.pool(hidden, mask, "max").tolist() == [[3, 1]]
    assert pooling.pool(hidden, mask, "max+mean").tolist() == [[3, 1, 2, -2]]
    # Softmax of the products 1 and 3 with the query (1, 0), and equal weights for the query of
    # zeros.
    weight = 1 / (1 + math.exp(-2))
    by_hand = [1 + 2 * weight, -5 + 6 * weight, 2, -2]
    queries = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert pooling.pool(hidden, mask, "attention", queries)[0].tolist() == pytest.approx(by_hand)
    for how in ("cls", "attention", "max+mean+attention"):
        assert pooling.pooled_size(how, 2, 2) == pooling.pool(hidden, mask, how, queries).shape[1]
    with pytest.raises(
        ValueError, match="pooling 'median' is not known; use cls, mean, max, attention, or several"
    ):
        pooling.pool(hidden, mask, "median")
    with pytest.raises(ValueError, match="needs queries"):
        pooling.pool(hidden, mask, "attention")


def test_poolings_differ(loaded):
    tokenizer, model = loaded
    rows = tokens.encode(tokenizer, TEXTS[:5], 40)
    vectors = [forward(tokenizer, model, rows, how) for how in POOLINGS]
    widths = [vector[:, : vectors[0].shape[1]] for vector in vectors]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(widths) for b in widths[:i])


def test_encode_gives_what_the_tokenizer_gives(loaded):
    tokenizer, _ = loaded
    assert (
        tokens.encode(tokenizer, TEXTS[:50], 60)
        == tokenizer(TEXTS[:50], truncation=True, max_length=60)["input_ids"]
    )
    assert tokens.encode(tokenizer, [], 10) == []
    assert len(tokens.encode(tokenizer, [""], 10)[0]) == 2


def test_head_and_tail_of_a_long_text(loaded):
    tokenizer, _ = loaded
    text = " ".join(TEXTS[:20])
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert tokens.encode(tokenizer, [text], 12, head_share=0.7)[0] == [
        start,
        *whole[:7],
        *whole[-3:],
        end,
    ]
    assert tokens.encode(tokenizer, [text], 12, head_share=0.0)[0] == [start, *whole[-10:], end]
    assert tokens.encode(tokenizer, [text], 12)[0] == [start, *whole[:10], end]
    with pytest.raises(ValueError, match="leaves no room: 2 special tokens"):
        tokens.encode(tokenizer, [text], 2)


def test_all_sources_give_the_same_kind(loaded):
    tokenizer, model = loaded
    assert not model.training
    assert model.dtype == torch.float32
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert model(**tokenizer("да", return_tensors="pt")).last_hidden_state.shape[-1] == 32


def test_hub_out_of_reach(monkeypatch):
    # The variable HF_HUB_OFFLINE was read when the library was imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError,
        match=r"(?s)encoder 'nobody/no-such-model' could not be loaded: no such folder.*"
        r"encoder='embedded'",
    ):
        loading.load_encoder("nobody/no-such-model")


def test_corrupt_folder(tiny_bert, tmp_path):
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(tiny_bert, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(DataError, match=r"(?s)is damaged .*; copy, save or train it again"):
        loading.load_encoder(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"has no config\.json"):
        loading.load_encoder(str(folder))


DECODERS = [
    GPT2Model(GPT2Config(vocab_size=600, n_embd=16, n_layer=1, n_head=2)),
    LlamaModel(
        LlamaConfig(
            vocab_size=600,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ),
]


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda model: type(model).__name__)
def test_a_decoder_is_refused(tiny_bert, tmp_path, decoder):
    import shutil

    decoder.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_bert / name, tmp_path)
    with pytest.raises(DataError, match=r"is a (GPT2|Llama)Model, not an encoder"):
        loading.load_encoder(str(tmp_path))


def test_weights_that_are_missing_are_an_error_not_random(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "half")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if ".layer.1." not in k},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(DataError, match=r"lacks 16 weights \(encoder.layer.1"):
        loading.load_encoder(str(folder))


def test_layers_that_look_at_a_window_get_the_mask_as_it_is():
    """Spelt out, the mask would tell such layers to look everywhere."""
    mask = torch.ones(2, 5, dtype=torch.long, device="meta")
    for kinds, n_dimensions in (
        (None, 4),
        (["full_attention"] * 2, 4),
        (["full_attention", "sliding_attention"], 2),
    ):
        config = SimpleNamespace(_attn_implementation="sdpa", layer_types=kinds)
        assert loading.mask_for(SimpleNamespace(config=config), mask).ndim == n_dimensions
