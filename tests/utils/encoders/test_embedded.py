import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import sha256
from viralbert_utils.data import sources
from viralbert_utils.encoders import embedded, loading, vocabulary
from viralbert_utils.encoders.recipe import LAYERS, LAYERS_SHA256, Recipe

SMALL = Recipe(n_words=60_000, n_pieces=3000, n_layers=1, intermediate=300, pretrained=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIRALBERT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def tokenizer_and_model(cache):
    return loading.load_encoder(str(embedded.embedded_folder(SMALL)))


@pytest.fixture(scope="module")
def tokenizer(tokenizer_and_model):
    return tokenizer_and_model[0]


def vector(tokenizer_and_model, token: str) -> np.ndarray:
    tokenizer, model = tokenizer_and_model
    return (
        model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(token)].detach().numpy()
    )


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Ещё и ПЁТР", ["еще", "и", "петр"]),
        ("хорошо😂😂", ["хорошо", "😂", "😂"]),
        ("👍🏽!", ["👍", "!"]),
        ("семья 👨\u200d👩\u200d👧", ["семья", "👨", "👩", "👧"]),
        ("«да», — сказал", ["«", "да", "»", ",", "—", "сказал"]),
    ],
)
def test_case_yo_emoji_and_punctuation(tokenizer, text, tokens):
    assert tokenizer.tokenize(text) == tokens


@pytest.mark.parametrize(
    "word",
    [
        "капееец",
        "наикотейший",
        "ъъъ",
        "йцукенг",
        "превед",
        "ы" * 3000,
        "мультипликационнейшими",
        "qwertyüñ",
        "№5",
        "ґєї",
    ],
)
def test_no_word_is_lost_to_the_unknown_token(tokenizer, word):
    pieces = tokenizer.tokenize(word)
    assert "[UNK]" not in pieces
    assert "".join(piece.removeprefix("##") for piece in pieces) == word


def test_no_token_of_the_sample_data_is_unknown(tokenizer):
    texts = (
        sources.load("emotions").splits["all"]["text"].tolist()
        + sources.load("reviews").splits["all"]["text"].tolist()
    )
    ids = tokenizer(texts)["input_ids"]
    assert sum(row.count(tokenizer.unk_token_id) for row in ids) == 0


def test_words_keep_their_meaning_and_pieces_get_some(tokenizer_and_model):
    joy, glad, road = (
        vector(tokenizer_and_model, word) for word in ("радость", "счастье", "дорога")
    )
    assert cosine(joy, glad) > cosine(joy, road) + 0.1
    laugh, cry, anger = (vector(tokenizer_and_model, sign) for sign in "😂😭😡")
    words = {word: vector(tokenizer_and_model, word) for word in ("смех", "слезы", "гнев")}
    assert cosine(laugh, words["смех"]) > cosine(laugh, words["гнев"])
    assert cosine(cry, words["слезы"]) > cosine(cry, words["гнев"])
    assert cosine(anger, words["гнев"]) > cosine(anger, words["слезы"])


def test_the_folder_is_an_ordinary_bert(tokenizer_and_model):
    _, model = tokenizer_and_model
    assert type(model).__name__ == "BertModel"
    assert model.config.hidden_size == 300
    assert model.embeddings.word_embeddings.weight[0].abs().sum() == 0
    folder = embedded.embedded_folder(SMALL)
    assert {path.suffix for path in folder.iterdir()} == {"", ".json", ".safetensors"}


def test_same_recipe_same_bytes_and_the_random_state_stays(cache, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    embedded.build(SMALL, tmp_path)
    assert torch.rand(1) == expected
    first = embedded.embedded_folder(SMALL)
    kept = {p.name: sha256(p) for p in first.iterdir() if p.name != "SHA256SUMS"}
    assert {p.name: sha256(p) for p in tmp_path.iterdir()} == kept


def test_another_recipe_is_another_folder():
    assert Recipe(n_layers=3).key != Recipe().key
    assert Recipe(seed=1).key != Recipe().key


def _build(cache: str, results: multiprocessing.Queue) -> None:
    import os

    os.environ["VIRALBERT_CACHE"] = cache
    results.put(str(embedded.embedded_folder(SMALL)))


def test_two_processes_may_build_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_build, args=(str(tmp_path), results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    folders = {results.get(timeout=600) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(folders) == 1
    assert [path.name for path in tmp_path.iterdir()] == [Path(folders.pop()).name]


def test_missing_word_vectors_are_named(monkeypatch):
    from importlib import metadata

    def missing(_: str) -> None:
        raise metadata.PackageNotFoundError("natasha")

    monkeypatch.setattr(vocabulary.metadata, "distribution", missing)
    with pytest.raises(
        DataError,
        match=r"word vectors of the natasha package are missing.*pip install 'viralbert-course'",
    ):
        vocabulary.load_navec()


def test_untrained_heads_lean_to_their_neighbours(tokenizer_and_model):
    """Besides the word itself, heads 0 to 3 look most at the place they are made for, wherever in
    the text it is."""
    tokenizer, model = tokenizer_and_model
    text = (
        "слово за слово и вечер прошёл за разговором о старых друзьях и новых книгах, потом "
        "долго гуляли по городу"
    )
    ids = tokenizer(text, return_tensors="pt")
    model.set_attn_implementation("eager")
    n_tokens = ids["input_ids"].shape[1]
    others = [offset for offset in range(-4, 5) if offset]
    for start in (0, 200):
        places = torch.arange(start, start + n_tokens)[None]
        with torch.inference_mode():
            found = (
                model(**ids, position_ids=places, output_attentions=True).attentions[0][0].numpy()
            )
        weight = {
            o: np.mean([found[:, t, t + o] for t in range(4, n_tokens - 4)], axis=0) for o in others
        }  # for each offset, that of each head
        for head, own in enumerate((-1, 1, -2, 2)):
            rest = np.mean([weight[o][head] for o in others if o != own])
            assert weight[own][head] > 2.5 * rest, (head, start)
        flat = np.array([weight[o][4:] for o in others])
        assert flat.max() < 1.5 * flat.min()


def test_shipped_layers_are_checked(tokenizer_and_model, tmp_path):
    _, model = tokenizer_and_model
    with pytest.raises(DataError, match=r"layers\.safetensors are needed, and this is missing"):
        embedded.load_layers(model, tmp_path / "layers.safetensors", "0")
    (tmp_path / "layers.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match="is another file than expected"):
        embedded.load_layers(model, tmp_path / "layers.safetensors", "0")
    with pytest.raises(DataError, match="was trained in another shape"):
        embedded.load_layers(model, LAYERS, LAYERS_SHA256)


def test_the_embedded_encoder_carries_the_shipped_layers(monkeypatch):
    from safetensors.torch import load_file

    monkeypatch.delenv("VIRALBERT_CACHE", raising=False)  # the one that the lessons use
    _, model = loading.load_encoder("embedded")
    shipped = load_file(LAYERS)
    own = dict(embedded.trained_layers(model))
    assert shipped.keys() == own.keys()
    assert all(torch.equal(own[name], tensor.float()) for name, tensor in shipped.items())
    assert LAYERS.stat().st_size < 10e6
