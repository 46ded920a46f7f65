import numpy as np
import pandas as pd
import pytest

from viralbert_utils.base.errors import DataError
from viralbert_utils.data import sources, splits
from viralbert_utils.data.emotions import multi_hot
from viralbert_utils.lessons import preparation


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rates = np.geomspace(0.3, 0.01, 12)
    labels = [sorted(np.flatnonzero(rng.random(12) < rates).tolist()) or [0] for _ in range(3000)]
    return pd.DataFrame({"text": [f"текст номер {i}" for i in range(3000)], "labels": labels})


def places(parts: dict[str, pd.DataFrame]) -> dict[str, str]:
    return {text: split for split, part in parts.items() for text in part["text"]}


def test_shares_and_completeness(table):
    parts = splits.by_label(table)
    assert sum(map(len, parts.values())) == len(table)
    assert len(parts["train"]) / len(table) == pytest.approx(0.7, abs=0.01)
    assert preparation.n_shared(parts) == 0


def test_rare_labels_reach_every_split_better_than_by_chance(table):
    def worst(parts: dict[str, pd.DataFrame]) -> float:
        shares = pd.DataFrame(
            {name: multi_hot(part["labels"], 12).mean(axis=0) for name, part in parts.items()}
        )
        return float(shares.div(shares["train"], axis=0).sub(1).abs().max().max())

    chance = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(table))
        cuts = np.split(order, [2100, 2550])
        chance.append(
            worst({name: table.iloc[rows] for name, rows in zip(splits.SHARES, cuts, strict=True)})
        )
    assert worst(splits.by_label(table)) < np.mean(chance) * 0.7


def test_order_of_rows_does_not_matter(table):
    shuffled = table.sample(frac=1, random_state=1)
    assert places(splits.by_label(table)) == places(splits.by_label(shuffled))


def test_another_seed_is_another_split(table):
    a, b = (places(splits.by_label(table, seed=seed)) for seed in (0, 1))
    assert 0.3 < np.mean([a[text] != b[text] for text in a]) < 0.6


def test_new_rows_leave_the_old_ones_where_they_are(table):
    new = table.head(100).assign(text=[f"новый текст {i}" for i in range(100)])
    before, after = places(splits.by_label(table)), places(splits.by_label(pd.concat([table, new])))
    # Each new row can push at most one old row over each of the two boundaries of its stratum.
    assert sum(before[text] != after[text] for text in before) <= 200
    assert np.mean([before[text] != after[text] for text in before]) < 0.03


def test_equal_texts_stay_together():
    texts = [text for i in range(60) for text in (f"Текст, {i}!", f"текст {i}")]
    parts = splits.by_label(pd.DataFrame({"text": texts, "labels": [[1], [2]] * 60}))
    assert preparation.n_shared(parts) == 0


def test_single_labels_and_unlabelled_rows():
    table = pd.DataFrame(
        {"text": [f"т {i}" for i in range(400)], "label": [i % 2 for i in range(400)]}
    )
    parts = splits.by_label(table, label_column="label")
    assert {split: part["label"].mean() for split, part in parts.items()} == pytest.approx(
        {"train": 0.5, "validation": 0.5, "test": 0.5}, abs=0.02
    )
    unlabelled = pd.DataFrame(
        {"text": [f"т {i}" for i in range(100)], "labels": [[] for _ in range(100)]}
    )
    assert sum(map(len, splits.by_label(unlabelled).values())) == 100


def test_tiny_strata_are_spread_not_all_sent_to_training():
    labels = [[i] for i in range(300)]
    parts = splits.by_label(
        pd.DataFrame({"text": [f"т {i}" for i in range(300)], "labels": labels})
    )
    assert len(parts["test"]) == pytest.approx(45, abs=20)


def test_films_stay_whole_and_labels_keep_their_shares():
    reviews = sources.load("reviews").splits["all"]
    parts = splits.by_group(reviews, "film", "label")
    films = [set(part["film"]) for part in parts.values()]
    assert not (films[0] & films[1] or films[0] & films[2] or films[1] & films[2])
    assert len(parts["train"]) / len(reviews) == pytest.approx(0.7, abs=0.04)
    good = [(part["label"] == "good").mean() for part in parts.values()]
    assert max(good) - min(good) < 0.08
    few = reviews[reviews["film"].isin(reviews["film"].unique()[:3])]
    assert all(len(part) for part in splits.by_group(few, "film", "label").values())
    with pytest.raises(DataError, match="2 groups in 'film' cannot fill 3 splits"):
        splits.by_group(few[few["film"] != few["film"].iloc[0]], "film", "label")


def test_a_split_without_rows_is_an_error():
    with pytest.raises(DataError, match=r"no row is left for validation, test: 1 rows are too few"):
        splits.by_label(pd.DataFrame({"text": ["а"], "labels": [[1]]}), seed=3)


def test_published_splits_are_not_cut_again(table):
    dated = table.assign(published_at="2022-03-01", label=1)
    tables = {"train": dated[:2000], "validation": dated[2000:2500], "test": dated[2500:]}
    for name in ("virality", "reviews"):
        pd.testing.assert_frame_equal(splits.split_set(name, tables)["test"], tables["test"])


def test_time_is_cut_by_age_and_never_within_a_moment():
    days = pd.date_range("2022-01-01", periods=50).repeat(4)
    table = pd.DataFrame(
        {"text": [f"т {i}" for i in range(200)], "published_at": days.astype(str)}
    ).sample(frac=1, random_state=0)
    parts = splits.by_time(table, "published_at")
    assert parts["train"]["published_at"].max() < parts["validation"]["published_at"].min()
    assert parts["validation"]["published_at"].max() < parts["test"]["published_at"].min()
    assert sum(map(len, parts.values())) == 200
    with pytest.raises(DataError, match=r"published_at='вчера' is no date"):
        splits.by_time(pd.DataFrame({"text": ["т"], "published_at": ["вчера"]}), "published_at")


@pytest.mark.parametrize(
    "present",
    [
        ["train", "validation"],
        ["train", "test"],
        ["all", "test"],
        ["train"],
        ["all"],
        ["train", "validation", "test"],
    ],
)
def test_complete_gives_three_splits_and_keeps_published_ones(table, present):
    tables = {name: table.iloc[i * 900 : i * 900 + 900] for i, name in enumerate(present)}
    parts = splits.complete(tables)
    assert set(parts) == {"train", "validation", "test"}
    assert all(len(part) for part in parts.values())
    assert preparation.n_shared(parts) == 0
    if "test" in present:
        pd.testing.assert_frame_equal(parts["test"], tables["test"])
    if "validation" in present:
        assert len(parts["train"]) == 900


def test_each_set_is_cut_in_its_own_way():
    dated = pd.DataFrame(
        {
            "text": [f"т {i}" for i in range(60)],
            "label": [0, 1] * 30,
            "published_at": [f"2022-03-{1 + i // 3:02}" for i in range(60)],
        }
    )
    parts = splits.split_set("virality", {"train": dated})
    assert parts["train"]["published_at"].max() < parts["test"]["published_at"].min()
    tagged = pd.DataFrame(
        {
            "text": [f"т {i}" for i in range(60)],
            "tags": ["Спорт: Хоккей, Дети: Сказки", "Наука, Физика: Опыты"] * 30,
        }
    )
    parts = splits.split_set("videos", {"train": tagged})
    assert set(pd.concat(parts.values())["label"]) == {"Спорт", "Наука"}
