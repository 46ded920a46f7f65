import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertModel

from tests import tiny
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import write_sums
from viralbert_utils.lessons import frozen, hybrid
from viralbert_utils.lessons.columns import (
    Preparation,
    _frame,
    column_transformer,
    empty,
    prepare,
    snippet,
)
from viralbert_utils.models import inference
from viralbert_utils.training.settings import Settings

TEXTS, NUMBERS, CATEGORIES = ["title", "note"], ["views", "seconds"], ["channel"]
QUICK = Settings(epochs=20, batch_size=16, learning_rate=1e-2, accumulate=2)


def make_rows(n: int = 120, seed: int = 0) -> pd.DataFrame:
    """Class a or b is told by the title's letter, b or c by the views: neither part is enough."""
    rng = np.random.default_rng(seed)
    label = rng.choice(["a", "b", "c"], n)
    views = np.where(label == "c", rng.lognormal(10, 0.5, n), rng.lognormal(3, 0.5, n)).astype(int)
    return pd.DataFrame(
        {
            "title": np.where(label == "a", "а а", "ё ё"),
            "note": rng.choice(["ё", ""], n),
            "views": [str(v) if rng.random() > 0.05 else "" for v in views],
            "seconds": rng.normal(100, 10, n).astype(str),
            "channel": rng.choice(["studio", "fan", ""], n),
            "label": label,
        }
    )


def make_encoder() -> BertModel:
    torch.manual_seed(1)
    return tiny.bert().eval()


@pytest.fixture(scope="module")
def trained():
    rows = make_rows()
    prepared = prepare(rows, TEXTS, NUMBERS, CATEGORIES)
    return hybrid.train(
        rows, "label", prepared, tiny.tokenizer(), make_encoder(), QUICK, 16, dropout=0.0
    )[0]


def test_rare_classes_and_empty_rows_are_set_aside_and_counted():
    rows = pd.DataFrame(
        {
            "label": ["a"] * 3 + ["b"] * 2 + ["a"],
            "x": ["1", "1", "1", "1", " ", ""],
            "y": ["1", "", "1", "1", None, None],
        }
    )
    kept, aside = hybrid.set_aside(rows, "label", ["x", "y"], min_rows=2, max_empty=1)
    # The second b is empty, which leaves one b: too rare.
    assert kept.index.tolist() == [0, 1, 2]
    assert aside["reason"].to_dict() == {
        3: "rare class",
        4: "too many empty fields",
        5: "too many empty fields",
    }


def test_a_snippet_holds_every_class():
    rows = pd.DataFrame({"label": ["a"] * 10 + ["b", "c"]})
    found = snippet(rows, "label", 4)
    assert found["label"].tolist() == ["a", "a", "b", "c"]


NUMBER = st.one_of(
    st.floats(-1e6, 1e6), st.integers(0, 10**9), st.just(""), st.just("n/a"), st.just(float("inf"))
)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(NUMBER, NUMBER, st.sampled_from(["x", "y", "", "z"])), min_size=2, max_size=40
    ),
    st.integers(),
)
def test_the_kept_numbers_transform_as_scikit_learn_does(values, seed):
    rows = pd.DataFrame(values, columns=["views", "seconds", "channel"]).assign(title="а")
    learn = rows.sample(frac=0.7, random_state=seed % 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns with fewer values than bins
        ours = prepare(learn, ["title"], NUMBERS, CATEGORIES)
        logs = {name: number.log for name, number in ours.numbers.items()}
        theirs = column_transformer(NUMBERS, CATEGORIES).fit(_frame(learn, logs, CATEGORIES))
    expected = theirs.transform(_frame(rows, logs, CATEGORIES))
    found = Preparation.from_plain(json.loads(json.dumps(hybrid.asdict(ours)))).columns(rows)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.isfinite(found).all()


def test_skewed_counts_become_logarithms_and_others_do_not():
    prepared = prepare(make_rows(), TEXTS, NUMBERS, CATEGORIES)
    assert prepared.numbers["views"].log
    assert not prepared.numbers["seconds"].log


def test_unseen_and_missing_values_get_an_answer(trained):
    odd = pd.DataFrame(
        {
            "title": [None, "а"],
            "note": ["", "ж"],
            "views": ["много", None],
            "seconds": ["", "-5"],
            "channel": ["новый", None],
        }
    )
    columns = trained.preparation.columns(odd)
    assert columns[0, -3:].sum() == 0  # an unseen category
    answers, metrics = trained.predict(odd)
    assert answers["certainty"].between(1 / 3, 1).all()
    assert metrics == {}


def test_a_missing_field_is_marked():
    prepared = prepare(make_rows(), TEXTS)
    assert prepared.text(pd.DataFrame({"title": [" "], "note": ["б  в"]})) == ["title: — note: б в"]
    assert prepared.columns(make_rows()).shape == (120, 0)


def test_an_unknown_column_is_named():
    with pytest.raises(DataError, match=r"no column 'clicks'.*title"):
        prepare(make_rows(), TEXTS, ["clicks"])


def test_rows_that_lack_a_column_are_a_message(trained):
    rows, prepared = make_rows(20), trained.preparation
    for lacking in (["views"], ["note", "channel"]):
        less = rows.drop(columns=lacking)
        found = rf"no column {', '.join(map(repr, lacking))}; found {', '.join(less.columns)}"
        for read in (trained.predict, trained.probabilities):
            with pytest.raises(DataError, match=found):
                read(less)
        with pytest.raises(DataError, match=found):
            prepare(less, TEXTS, NUMBERS, CATEGORIES)
    with pytest.raises(DataError, match="no column 'note'"):
        prepared.text(rows.drop(columns="note"))
    with pytest.raises(DataError, match="no column 'seconds', 'channel'"):
        prepared.columns(rows.drop(columns=["channel", "seconds"]))
    with pytest.raises(DataError, match="no column 'project', 'x'; found title"):
        hybrid.set_aside(rows, "project", ["x", "title"])
    with pytest.raises(DataError, match="no column 'project'; found title"):
        snippet(rows, "project", 4)
    # The label may be missing, and nothing else is read.
    assert len(trained.predict(rows.drop(columns="label"))[0]) == 20


def test_text_and_table_together_learn_what_neither_tells(trained):
    test = make_rows(seed=1)
    _, metrics = trained.predict(test)
    assert metrics["rows"] == len(test)
    assert metrics["macro_f1"] > 0.85  # the text alone or the table alone: two thirds at best
    some = test.assign(label=test["label"].where(test.index < 10))
    assert trained.predict(some)[1]["rows"] == 10


def test_a_table_without_some_classes_is_judged_by_those_it_has():
    rows = pd.DataFrame({"label": ["a", "a", "b", "?"]})
    figures = hybrid.figures(rows, pd.Series(["a", "a", "b", "c"]), ["a", "b", "c", "d"])
    assert figures == {"rows": 3, "accuracy": 1.0, "macro_f1": 1.0}
    figures = hybrid.figures(rows, pd.Series(["a", "c", "b", "c"]), ["a", "b", "c", "d"])
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)  # c was only answered


def test_saved_and_loaded_it_answers_as_before(trained, tmp_path):
    trained.save(tmp_path / "hybrid")
    assert not [
        path
        for path in (tmp_path / "hybrid").rglob("*")
        if path.suffix in (".pkl", ".pt", ".bin", ".joblib")
    ]
    again = hybrid.Hybrid.load(tmp_path / "hybrid")
    assert again.preparation == trained.preparation
    np.testing.assert_allclose(
        again.probabilities(make_rows()), trained.probabilities(make_rows()), atol=1e-6
    )
    (tmp_path / "hybrid" / "head.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="no saved hybrid, or a damaged one"):
        hybrid.Hybrid.load(tmp_path / "hybrid")


def test_settings_that_do_not_fit_are_refused_when_they_are_read(trained, tmp_path):
    """Not at the first row, or at the first long one."""
    trained.save(tmp_path)
    path = tmp_path / "classifier.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    preparation = plain["preparation"]
    name, number = next(iter(preparation["numbers"].items()))
    wrong = [
        *({"max_length": value} for value in (4096, 2, -1, "a", None, 1.5)),
        {"names": "ab"},
        {"names": ["a", "a"]},
        {"shape": {"n_columns": 1, "hidden": 4}},
        {"dropout": 2},
        {"preparation": preparation | {"texts": 5}},
        {"preparation": preparation | {"numbers": {}}},
        {"preparation": preparation | {"categories": None}},
        {"preparation": preparation | {"numbers": {name: number | {"edges": []}}}},
    ]
    for change in wrong:
        path.write_text(json.dumps(plain | change), encoding="utf-8")
        write_sums(tmp_path)
        with pytest.raises(DataError):
            hybrid.Hybrid.load(tmp_path)
    path.write_text(json.dumps(plain), encoding="utf-8")
    write_sums(tmp_path)
    hybrid.Hybrid.load(tmp_path)


def test_vectors_that_stay_the_same_are_computed_once_and_change_nothing(trained):
    rows = make_rows(30)
    encoded = hybrid._encoded(rows, trained.preparation, trained.tokenizer, 16)
    once = hybrid.replace(encoded, pooled=trained.model.pooled(encoded.rows, 0))
    expected = inference.predict_logits(trained.model, encoded, 0)
    assert torch.allclose(inference.predict_logits(trained.model, once, 0), expected, atol=1e-5)
    assert encoded.digest != hybrid.replace(encoded, columns=encoded.columns + 1).digest


def test_only_what_was_freed_learns(trained):
    encoder = make_encoder()
    before = {name: part.clone() for name, part in encoder.state_dict().items()}
    options = {
        "settings": Settings(epochs=1, learning_rate=1e-2),
        "max_length": 16,
        "top_layers": 1,
    }
    rows = make_rows(32)
    hybrid.train(
        rows, "label", trained.preparation, trained.tokenizer, encoder, validation=rows, **options
    )
    moved = {
        name for name, part in encoder.state_dict().items() if not torch.equal(part, before[name])
    }
    assert moved
    assert all(name.startswith("encoder.layer.0") for name in moved)


def test_the_first_layers_are_an_encoder_of_their_own(tmp_path):
    encoder = make_encoder()
    words = hybrid.first_layers(encoder, 0)
    ids, mask = torch.tensor([[1, 4, 2]]), torch.ones(1, 3, dtype=torch.long)
    expected = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[
        0
    ]
    assert torch.equal(words(input_ids=ids, attention_mask=mask).last_hidden_state, expected)
    words.save_pretrained(tmp_path)
    assert len(frozen.layers_of(BertModel.from_pretrained(tmp_path))) == 0
    assert encoder.config.num_hidden_layers == 1


def test_a_cell_in_which_nothing_is_seen_is_empty():
    rows = pd.DataFrame(
        {"title": ["Кот", " \u2800", "\u3164\u034f", None], "n": [0.0, 1.0, np.nan, 2.0]}
    )
    assert empty(rows).to_numpy().T.tolist() == [
        [False, True, True, True],
        [False, False, True, False],
    ]
