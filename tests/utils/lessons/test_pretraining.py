import lzma

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertModel

from tests import tiny
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import sha256
from viralbert_utils.base.tokens import encode
from viralbert_utils.encoders import embedded, vocabulary
from viralbert_utils.encoders.recipe import Recipe
from viralbert_utils.encoders.vocabulary import SPECIAL
from viralbert_utils.lessons import pretraining
from viralbert_utils.lessons.pretraining import Bigrams, Corpus, Plan

MASK, VOCABULARY = 4, 40
SMALL = Recipe(n_words=5000, n_pieces=1000, n_layers=1, intermediate=60, pretrained=False)


def make_encoder() -> BertModel:
    torch.manual_seed(0)
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return tiny.bert(VOCABULARY, 20, 64, **without)


def make_sequences(n: int = 400, seed: int = 0) -> np.ndarray:
    """Each sequence counts up from a random token, so what is hidden follows from any neighbour."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 30, (n, 1))
    body = 6 + (start + np.arange(15)) % 30
    return np.hstack([np.full((n, 1), 2), body]).astype(np.int32)


def make_corpus() -> Corpus:
    sequences = make_sequences()
    return Corpus({"a": sequences[:300], "b": sequences[300:]}, {"a": 1.0, "b": 3.0})


QUICK = Plan(n_steps=6, batch_size=8, n_targets=30)


def test_packing_loses_no_token_and_pads_nothing():
    words = {token: i for i, token in enumerate([*SPECIAL, *"абвгд"])}
    tokenizer = vocabulary.make_tokenizer(list(words), 64)
    packed = pretraining.pack(tokenizer, ["а б", "в", "г д а"], length=4)
    first, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert packed.tolist() == [
        [first, words["а"], words["б"], end],
        [first, words["в"], end, words["г"]],
        [first, words["д"], words["а"], end],
    ]
    with pytest.raises(ValueError, match="2 tokens do not fill one sequence of 9"):
        pretraining.pack(tokenizer, ["а"], length=9)


def test_packing_reads_long_words_as_models_do():
    words = {token: i for i, token in enumerate([*SPECIAL, *"абвгд"])}
    tokenizer = vocabulary.make_tokenizer(list(words), 64)
    text = f"а {'бв' * 125} г"
    assert pretraining.pack(tokenizer, [text], length=7).tolist() == encode(tokenizer, [text])


def test_sources_are_drawn_by_weight():
    sequences = make_sequences()
    corpus = Corpus({"a": sequences[:300] * 0, "b": sequences[300:] * 0 + 1}, {"a": 1.0, "b": 3.0})
    drawn = corpus.draw(4000, np.random.default_rng(0))
    assert drawn.shape == (4000, 16)
    assert drawn[:, 0].mean() == pytest.approx(0.75, abs=0.03)


def test_hiding_follows_the_published_shares():
    batch = np.random.default_rng(1).integers(5, 40, (2000, 16))
    candidates = np.arange(VOCABULARY) >= 10
    seen, chosen = pretraining.hide(batch, candidates, MASK, 0.2, np.random.default_rng(0))
    assert not chosen[batch < 10].any()
    assert chosen[batch >= 10].mean() == pytest.approx(0.2, abs=0.01)
    assert (seen == batch)[~chosen].all()
    assert (seen[chosen] == MASK).mean() == pytest.approx(0.8, abs=0.02)
    kept = (seen == batch)[chosen].mean()
    assert 0.09 < kept < 0.13  # a tenth, and the random tokens that happen to be the same


def test_bigrams_by_hand():
    bigrams = Bigrams(np.array([[6, 7, 6, 7, 6, 8]]), VOCABULARY)
    assert bigrams.most_frequent(np.array([6, 7, 20])).tolist() == [7, 6, bigrams.unigram]


def test_targets_are_the_most_frequent_tokens():
    assert pretraining.targets(np.array([[2, 9, 9, 9, 7, 7, 8]]), 2).tolist() == [9, 7]
    assert len(pretraining.targets(make_sequences(), 1000)) == 30


def test_resume_to_the_bit(tmp_path, monkeypatch):
    plan = QUICK
    whole, cut = make_encoder(), make_encoder()
    before = whole.get_input_embeddings().weight.clone()
    history, _ = pretraining.pretrain(whole, MASK, make_corpus(), plan, every=1)
    draw, calls = Corpus.draw, []

    def broken(self, n, rng):
        calls.append(n)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw(self, n, rng)

    monkeypatch.setattr(Corpus, "draw", broken)
    monkeypatch.setattr(pretraining, "ROWS_PER_CHECKPOINT", 1)
    checkpoint = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(cut, MASK, make_corpus(), plan, checkpoint, every=1)
    monkeypatch.setattr(Corpus, "draw", draw)
    again = make_encoder()
    resumed, _ = pretraining.pretrain(again, MASK, make_corpus(), plan, checkpoint, every=1)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert resumed["loss"].tolist() == history["loss"].tolist()
    assert torch.equal(whole.get_input_embeddings().weight, before), "word vectors stay"
    with pytest.raises(ValueError, match="made with another plan"):
        pretraining.pretrain(make_encoder(), MASK, make_corpus(), Plan(n_steps=7), checkpoint)
    whole_file = checkpoint.read_bytes()
    middle = len(whole_file) // 2
    checkpoint.write_bytes(
        whole_file[:middle] + bytes([whole_file[middle] ^ 1]) + whole_file[middle + 1 :]
    )
    with pytest.raises(DataError, match=r"is damaged .*; delete it"):
        pretraining.pretrain(make_encoder(), MASK, make_corpus(), plan, checkpoint)


def test_learns_what_neighbours_tell():
    plan = Plan(n_steps=400, batch_size=32, learning_rate=5e-3, n_targets=30)
    history, model = pretraining.pretrain(make_encoder(), MASK, make_corpus(), plan, every=50)
    assert history["accuracy"].iloc[-1] > 2 * history["accuracy"].iloc[0]
    right = pretraining.masked_accuracy(model, make_sequences(100, seed=1), MASK)
    assert right["sequence"].is_monotonic_increasing
    assert right["sequence"].nunique() > 80
    assert right["model"].mean() > 0.6
    assert right["bigram"].mean() > 0.9  # the token before tells all here, except after the first
    assert right["unigram"].mean() < 0.15


def test_saved_layers_are_all_but_the_word_vectors(tmp_path):
    encoder = make_encoder()
    digest = pretraining.save_layers(encoder, tmp_path / "layers.safetensors")
    saved = load_file(tmp_path / "layers.safetensors")
    names = {name for name, _ in encoder.named_parameters()} - {"embeddings.word_embeddings.weight"}
    assert set(saved) == names
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}
    assert len(digest) == 64
    assert digest == pretraining.save_layers(encoder, tmp_path / "again.safetensors")


def test_sources_of_texts(tmp_path):
    (tmp_path / "a.txt").write_text("раз\n\nдва\n", encoding="utf-8")
    with lzma.open(tmp_path / "b.txt.xz", "wt", encoding="utf-8") as file:
        file.write("три\n")
    (tmp_path / "c.csv").write_text("title,text\nа,б\n,в\n", encoding="utf-8")
    names = ("a.txt", "b.txt.xz", "c.csv#title,text")
    found = [pretraining.Source.parse(f"{tmp_path}/{name}=0.5").texts() for name in names]
    assert found == [["раз", "два"], ["три"], ["а б", " в"]]
    with pytest.raises(DataError, match="has no column 'body'; it has title, text: name one of"):
        pretraining.Source.parse(f"{tmp_path}/c.csv#body=1").texts()
    with pytest.raises(DataError, match="expected path=weight"):
        pretraining.Source.parse("a.txt")
    with pytest.raises(DataError, match=r"no such file: nowhere\.txt; check its name"):
        pretraining.Source.parse("nowhere.txt=1").texts()


def test_the_command_writes_layers_that_can_be_shipped(tmp_path):
    rng = np.random.default_rng(0)
    words = np.array(["кот", "пёс", "дом", "лес", "ест", "спит", "видит", "идёт"])
    lines = [" ".join(rng.choice(words, 12)) for _ in range(300)]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    sources = [pretraining.Source.parse(f"{tmp_path}/texts.txt=1")]
    plan = Plan(n_steps=3, batch_size=4, n_targets=50)
    found = pretraining.run(sources, tmp_path / "out", plan, length=16, held_out=0.1, recipe=SMALL)
    assert set(found) == {"model", "bigram", "unigram", "seconds", "tokens_per_s"}
    assert 0 < found["unigram"] < 1
    assert (tmp_path / "out" / "history.csv").read_text().startswith("step,loss,accuracy")
    model = BertModel.from_pretrained(embedded.embedded_folder(SMALL), add_pooling_layer=False)
    layers = tmp_path / "out" / "layers.safetensors"
    embedded.load_layers(model, layers, sha256(layers))
    history, results = pretraining.recorded(tmp_path / "out")
    assert history["step"].tolist() == [3]
    assert results["plan"]["n_steps"] == 3
    assert results["plan"]["length"] == 16
    assert results["masked_accuracy"]["unigram"]["value"] == found["unigram"]
    (source,) = results["sources"]
    assert source["name"] == "texts.txt"
    assert source["tokens"] % 16 == 0
    assert source["tokens"] > 270 * 13


def test_a_record_that_is_not_whole(tmp_path):
    with pytest.raises(DataError, match=r"history\.csv is missing: install the project again"):
        pretraining.recorded(tmp_path)
    (tmp_path / "history.csv").write_text("step,loss\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"results\.json is missing"):
        pretraining.recorded(tmp_path)
    (tmp_path / "results.json").write_text('{"plan": {}}', encoding="utf-8")
    with pytest.raises(DataError, match="lacks masked_accuracy, sources"):
        pretraining.recorded(tmp_path)


def test_intervals_draw_whole_sequences():
    """Ten sequences, in each all right or all wrong: as tokens they would give a far narrower
    interval."""
    right = pd.DataFrame(
        {"sequence": np.repeat(np.arange(10), 50), "model": np.repeat([True, False], 250)}
    )
    found = pretraining.accuracies(right)["model"]
    assert found.value == 0.5
    assert found.low < 0.3
    assert found.high > 0.7
