import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, fisher_exact, pearsonr, spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import matthews_corrcoef

from viralbert_utils.base.errors import DataError
from viralbert_utils.lessons import correlation

NAMES = ("радость", "любовь", "злость", "страх", "горе")


def draw(rng: np.random.Generator, n: int = 800) -> np.ndarray:
    """Joy and love often meet, anger avoids joy, fear goes its own way, grief is nearly never
    there."""
    joy = rng.random(n) < 0.3
    love = np.where(joy, rng.random(n) < 0.5, rng.random(n) < 0.1)
    anger = ~joy & (rng.random(n) < 0.3)
    fear, grief = rng.random(n) < 0.15, np.arange(n) < 3
    return np.column_stack([joy, love, anger, fear, grief]).astype(np.int8)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return draw(np.random.default_rng(2))


def pair(table: pd.DataFrame, a: str, b: str) -> pd.Series:
    return table[(table["a"] == a) & (table["b"] == b)].iloc[0]


def test_phi_is_the_correlation_of_zeros_and_ones(labels):
    found = correlation.correlation(labels, NAMES)
    for a in range(5):
        for b in range(5):
            assert found.iloc[a, b] == pytest.approx(matthews_corrcoef(labels[:, a], labels[:, b]))


def test_correlation_of_probabilities():
    values = np.random.default_rng(1).random((200, 3)) ** 6
    values[:, 1] += values[:, 0] ** 2
    plain, ranks = (correlation.correlation(values, "abc", spearman) for spearman in (False, True))
    assert plain.at["a", "b"] == pytest.approx(pearsonr(values[:, 0], values[:, 1]).statistic)
    assert ranks.at["a", "b"] == pytest.approx(spearmanr(values[:, 0], values[:, 1]).statistic)
    assert ranks.at["c", "c"] == 1


def test_classes_without_variation_have_no_correlation(labels):
    constant = labels.copy()
    constant[:, 2], constant[:, 4] = 0, 1
    found = correlation.correlation(constant, NAMES)
    assert found.loc[["злость", "горе"]].isna().all(axis=None)
    assert set(correlation.ordered(found).index) == {"радость", "любовь", "страх"}
    assert correlation.left_out(NAMES, constant) == ["злость", "горе"]
    assert correlation.left_out(NAMES, labels) == ["горе"]
    assert correlation.left_out(NAMES, labels, min_positives=3) == []
    assert correlation.left_out(NAMES, labels, constant, min_positives=0) == ["злость", "горе"]


def test_tiny_probabilities_still_vary():
    values = np.column_stack([np.linspace(0, 1, 50), np.linspace(1e-9, 2e-9, 50), np.full(50, 0.1)])
    found = correlation.correlation(values, "abc")
    assert found.at["a", "b"] == pytest.approx(1)
    assert np.isnan(found.at["c", "c"])
    with pytest.raises(DataError, match="value of row 3, column 1 is nan"):
        values[3, 1] = np.nan
        correlation.correlation(values, "abc", spearman=False)


def test_order_puts_like_beside_like():
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(500, 2))
    values = np.column_stack([sources[:, k % 2] + 0.5 * rng.normal(size=500) for k in range(6)])
    matrix = correlation.correlation(values, "abcdef")
    found = correlation.ordered(matrix)
    assert {frozenset(found.index[:3]), frozenset(found.index[3:])} == {
        frozenset("ace"),
        frozenset("bdf"),
    }
    assert found.index.tolist() == found.columns.tolist()
    assert (found == matrix.loc[found.index, found.index]).all(axis=None)
    assert correlation.ordered(matrix.iloc[:2, :2]).index.tolist() == ["a", "b"]
    # A chain, in which each is like its neighbours: drawn in any order, it comes out as the chain,
    # or backwards.
    places = dict(zip("dagfbhce", range(8), strict=True))
    chain = pd.DataFrame(
        {a: {b: 0.8 ** abs(places[a] - places[b]) for b in "abcdefgh"} for a in "abcdefgh"}
    )
    assert "".join(correlation.ordered(chain).index) in ("dagfbhce", "echbfgad")


def test_conditional_probability(labels):
    table = correlation.conditional(labels, NAMES)
    assert len(table) == 12
    assert "горе" not in set(table["a"])
    joy, love = labels[:, 0] == 1, labels[:, 1] == 1
    row, back = pair(table, "радость", "любовь"), pair(table, "любовь", "радость")
    assert (row["texts"], row["both"]) == (joy.sum(), (joy & love).sum())
    assert row["P(b|a)"] == pytest.approx(love[joy].mean())
    assert back["P(b|a)"] == pytest.approx(joy[love].mean())
    assert row["low"] < 0.5 < row["high"]
    never = pair(table, "злость", "радость")
    assert (never["P(b|a)"], never["low"]) == (0, 0)
    assert 0 < never["high"] < 0.03


def test_pairs(labels):
    table = correlation.pairs(labels, NAMES)
    assert len(table) == 6
    joy, love = labels[:, 0] == 1, labels[:, 1] == 1
    row = pair(table, "радость", "любовь")
    assert row["lift"] == pytest.approx(love[joy].mean() / love.mean())
    assert row["expected"] == pytest.approx(joy.sum() * love.mean())
    counts = [
        [(joy & love).sum(), (joy & ~love).sum()],
        [(~joy & love).sum(), (~joy & ~love).sum()],
    ]
    assert row["p"] == pytest.approx(fisher_exact(counts).pvalue)
    assert row["phi"] == pytest.approx(matthews_corrcoef(joy, love))
    assert row["low"] > 1.5
    assert row["q"] < 1e-6
    apart = pair(table, "радость", "злость")
    assert (apart["both"], apart["lift"], apart["low"]) == (0, 0, 0)
    assert apart["high"] < 0.2
    assert apart["q"] < 1e-6
    unrelated = pair(table, "радость", "страх")
    assert unrelated["low"] < 1 < unrelated["high"]
    assert unrelated["q"] > 0.05
    assert (table["q"] >= table["p"]).all()


def test_lift_interval_covers_about_as_often_as_it_says():
    """Two labels that meet by chance 4 times on average (true lift 1), and two of which one brings
    the other along."""
    rng = np.random.default_rng(0)
    rare, nested = [], []
    for _ in range(400):
        x = rng.random((400, 3)) < 0.1
        x[:, 2] = x[:, 1] & (rng.random(400) < 0.5) | (rng.random(400) < 0.02)
        table = correlation.pairs(x.astype(int), "abc", 1)
        rare.append(table["low"][0] <= 1 <= table["high"][0])
        truth = (0.5 + 0.5 * 0.02) / (0.1 * 0.5 + 0.02 - 0.1 * 0.5 * 0.02)
        nested.append(table["low"][2] <= truth <= table["high"][2])
    assert 0.92 < np.mean(rare) <= 0.99
    assert 0.92 < np.mean(nested) <= 0.99


def test_many_pairs_of_unrelated_labels_are_not_found():
    found = [
        (
            correlation.pairs(
                np.random.default_rng(seed).random((300, 12)) < 0.15, [*"abcdefghijkl"]
            )["q"]
            < 0.05
        ).any()
        for seed in range(20)
    ]
    assert np.mean(found) <= 0.15


def test_weights_stand_for_repeated_rows():
    weights = np.array([[3, 0, 1, 0, 2, 0], [0, 2, 2, 1, 0, 1]])
    values = np.array(
        [[0.0, 0.3, 0], [1, 0.2, 0], [2, 0.9, 0], [5, 0.1, 0], [0, 0.8, 1], [1, 0.4, 0]]
    )
    found = correlation._correlations(values, weights)
    for row, matrix in zip(weights, found, strict=True):
        repeated = np.repeat(values, row, axis=0)
        assert matrix[0, 1] == pytest.approx(np.corrcoef(repeated[:, 0], repeated[:, 1])[0, 1])
    # The second resample lacks the only row with the last label.
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1, 2]).all()


@pytest.mark.parametrize("table", [correlation.pairs, correlation.conditional])
def test_too_few_classes_are_an_error(labels, table):
    with pytest.raises(
        DataError, match="1 classes have 10 positives and negatives; at least two are needed"
    ):
        table(labels[:, 3:], NAMES[3:])
    with pytest.raises(DataError, match=r"expected one shape, \(n_texts, 4\)"):
        table(labels, NAMES[:4])


def test_partial_correlation_sees_through_a_common_cause():
    """Virality comes from joy; love only goes along with joy."""
    rng = np.random.default_rng(0)
    joy = rng.normal(size=1500)
    love, fear = joy + rng.normal(size=1500), rng.normal(size=1500)
    score = joy - 0.3 * fear + rng.normal(size=1500)
    values = np.column_stack([joy, love, fear, np.full(1500, 0.2)])
    table = correlation.partial(
        score, values, ["joy", "love", "fear", "constant"], spearman=False, n_resamples=300
    )
    assert table.index.tolist() == ["joy", "love", "fear"]
    assert table["alone"]["love"] > 0.3
    assert table["low"]["love"] < 0 < table["high"]["love"]
    assert table["low"]["joy"] > 0.4
    assert table["high"]["fear"] < -0.1
    assert (table["q"] < 0.05).tolist() == [True, False, True]
    assert table["q"].to_numpy() == pytest.approx(false_discovery_control(table["p"]))
    # By definition: what is left of both when the others are taken out.
    rest = values[:, [1, 2]]
    left = [y - LinearRegression().fit(rest, y).predict(rest) for y in (score, joy)]
    assert table["partial"]["joy"] == pytest.approx(pearsonr(*left).statistic)
    ranks = correlation.partial(
        np.exp(3 * score), values, ["joy", "love", "fear", "constant"], n_resamples=50
    )
    assert ranks["partial"].to_numpy() == pytest.approx(table["partial"].to_numpy(), abs=0.1)


def test_partial_correlation_is_not_defined_for_exclusive_labels():
    rng = np.random.default_rng(0)
    labels = np.eye(4, dtype=int)[rng.integers(0, 4, 200)]
    score = rng.random(200)
    with pytest.raises(DataError, match=r"a class follows from the others \(leave neutral out\)"):
        correlation.partial(score, labels, "abcd")
    assert len(correlation.partial(score, labels[:, :3], "abc", n_resamples=20)) == 3
    with pytest.raises(DataError, match="the score does not vary"):
        correlation.partial(np.ones(200), labels[:, :3], "abc")


def test_resamples_without_a_rare_label_are_passed_over():
    labels = draw(np.random.default_rng(0), 200)
    labels[:, 4] = np.arange(200) == 7
    table = correlation.partial(
        np.random.default_rng(0).random(200), labels, NAMES, n_resamples=100
    )
    assert table.notna().all(axis=None)


def test_interval_of_phi_has_a_width_where_no_text_carries_both():
    low, high = correlation.phi_interval(0, 23, 31, 628)
    assert low == pytest.approx(-np.sqrt(23 / 605 * 31 / 597), abs=1e-6)
    assert 0.05 < high < 0.15


def test_interval_of_phi_holds_phi_and_widens_with_the_level():
    low, high = correlation.phi_interval(5, 23, 31, 628)
    phi = (628 * 5 - 23 * 31) / np.sqrt(23 * 605 * 31 * 597)
    wider = correlation.phi_interval(5, 23, 31, 628, 0.999)
    assert wider[0] < low < phi < high < wider[1]


def test_exact_difference_finds_a_planted_tie_and_chooses_without_looking_at_meetings():
    rng = np.random.default_rng(0)
    labels = (rng.random((600, 3)) < 0.1).astype(int)
    tied = labels.copy()
    tied[:, 1] = tied[:, 0]
    table = correlation.phi_difference_exact(labels, tied, ["a", "b", "c"])
    assert len(table) == 3
    assert table.set_index(["a", "b"])["clear"].to_dict() == {
        ("a", "b"): True,
        ("a", "c"): False,
        ("b", "c"): False,
    }
    row = pair(table, "a", "b")
    assert row["labels"] == pytest.approx(matthews_corrcoef(labels[:, 0], labels[:, 1]))
    assert row["predictions"] == pytest.approx(1)
    assert row["difference"] == pytest.approx(1 - row["labels"])
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert (row["both_labels"], row["both_predictions"]) == (
        (labels[:, 0] & labels[:, 1]).sum(),
        labels[:, 0].sum(),
    )


def test_exact_difference_of_equal_systems_is_hardly_ever_clear():
    rng = np.random.default_rng(0)
    tables = [
        correlation.phi_difference_exact(draw(rng, 400), draw(rng, 400), NAMES) for _ in range(12)
    ]
    assert sum(table["clear"].any() for table in tables) <= 1


def test_exact_difference_needs_pairs_that_chance_would_let_meet(labels):
    with pytest.raises(DataError, match="no pair is expected to meet 500 times"):
        correlation.phi_difference_exact(labels, labels, NAMES, min_expected=500)
