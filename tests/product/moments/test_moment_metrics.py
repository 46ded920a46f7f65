import numpy as np
import pandas as pd
import pytest

from viralbert.moments import moment_metrics, ranking
from viralbert.moments.limits import Limits
from viralbert.moments.ranking import MEDIAN_S, Moment
from viralbert.moments.scores import Scores
from viralbert.moments.subtitles import read_subtitles
from viralbert.moments.units import Unit, split_units
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.sources import SAMPLE

GOLD = np.array([[100.0, 140.0], [300.0, 330.0]])
UNITS = [Unit(t, t + 10, "Да.", True, True) for t in range(0, 600, 10)]
NOTHING = np.empty((0, 2))


def test_iou_divides_by_the_union_and_not_by_the_hull():
    a, b = np.array([[0.0, 10.0], [0.0, 4.0]]), np.array([[5.0, 15.0], [6.0, 8.0], [0.0, 4.0]])
    assert moment_metrics.iou(a, b) == pytest.approx(np.array([[1 / 3, 0.2, 0.4], [0, 0, 1]]))


def test_a_gold_moment_is_found_once():
    predicted = np.array([[102.0, 140.0], [100.0, 140.0], [500.0, 530.0], [300.0, 318.0]])
    assert moment_metrics.hits(predicted, GOLD, 0.5).tolist() == [True, False, False, True]
    assert moment_metrics.hits(predicted, GOLD, 0.75).tolist() == [True, False, False, False]
    assert moment_metrics.average_precision(predicted, GOLD, 0.5) == pytest.approx((1 + 2 / 4) / 2)
    assert moment_metrics.average_precision(predicted[::-1], GOLD, 0.5) == pytest.approx(
        (1 + 2 / 3) / 2
    )


def test_each_takes_the_best_gold_that_is_free():
    gold = np.array([[0.0, 20.0], [10.0, 30.0]])
    assert moment_metrics.hits(np.array([[8.0, 28.0], [2.0, 22.0]]), gold, 0.5).all()


def test_measure_of_right_wrong_and_empty_answers():
    assert set(moment_metrics.measure(GOLD, GOLD, UNITS).values()) == {1.0}
    assert set(moment_metrics.measure(NOTHING, GOLD, UNITS).values()) == {0.0}
    off = moment_metrics.measure(GOLD[:1] + np.array([0.45, 10.6]), GOLD, UNITS, k=1)
    assert off == pytest.approx(
        {
            "AP@0.5": 0.5,
            "AP@0.75": 0.5,
            "mAP": off["mAP"],
            "recall@1": 0.5,
            "HIT@1": 1,
            "on sentences": 0,
        }
    )
    assert 0.2 < off["mAP"] < 0.4
    early = moment_metrics.measure(np.array([[90.0, 108.0], [300, 330]]), GOLD, UNITS)
    assert early["HIT@1"] == 0 and early["recall@5"] == 0.5
    late = np.array([[0.0, 20.0], *GOLD])
    assert moment_metrics.measure(late, GOLD, UNITS, k=2)["recall@2"] == 0.5


def test_sentence_edges_are_those_of_sentences():
    units = [
        Unit(0, 10, "и", True, False),
        Unit(10, 20, "вот.", False, True),
        Unit(20, 30, "Да.", True, True),
    ]
    inside = moment_metrics.measure(
        np.array([[0.0, 10.0], [10.0, 20.0], [0.0, 20.3], [20.0, 30.0]]), GOLD, units
    )
    assert inside["on sentences"] == 0.5


@pytest.mark.parametrize("duration", [40.0, 600.0])
def test_chance_stays_in_the_video_and_does_not_overlap(duration):
    rows = moment_metrics.chance(duration, 5)
    for name, draws in rows.items():
        for spans in draws:
            ordered = spans[np.argsort(spans[:, 0])]
            assert (ordered[1:, 0] >= ordered[:-1, 1] - 1e-9).all(), name
            assert ordered[0, 0] >= -1e-9 and ordered[-1, 1] <= max(duration, MEDIAN_S) + 1e-9
    lengths = np.concatenate([spans[:, 1] - spans[:, 0] for spans in rows["random"]])
    if duration > 300:
        assert (
            lengths.min() >= 15 and lengths.max() <= 60 and abs(np.median(lengths) - MEDIAN_S) < 2.5
        )
        middles = np.concatenate([spans.mean(axis=1) for spans in rows["random"]])
        assert np.histogram(middles, bins=3, range=(0, 600))[0] == pytest.approx(
            [len(middles) / 3] * 3, rel=0.2
        )
        assert len(rows["grid"][0]) == 17
    assert rows["first"][0].tolist() == sorted(rows["grid"][0].tolist())[:5]


def test_systems_are_averaged_over_draws_and_compared_by_video():
    gold = {"a": GOLD, "b": GOLD[:1], "c": GOLD}
    units = dict.fromkeys(gold, UNITS)
    systems = {
        "right": {video: [spans] for video, spans in gold.items()},
        "half": {video: [spans, NOTHING] for video, spans in gold.items()},
        "chance": {video: moment_metrics.chance(600, 5)["random"] for video in gold},
    }
    table = moment_metrics.per_video(systems, gold, units)
    assert table.shape == (9, 6)
    assert (table.loc["half"] == 0.5).all(axis=None)
    means = moment_metrics.summary(table)
    assert (means.loc["right", "mAP"].low, means.loc["right", "mAP"].value) == (1, 1)
    chance = means.loc["chance", "AP@0.5"]
    assert 0.02 < chance.value < 0.3 and chance.low <= chance.value <= chance.high
    differences = moment_metrics.summary(table, reference="half")
    assert list(differences.index) == ["right", "chance"]
    assert str(differences.loc["right", "mAP"]) == "0.500 [0.500, 0.500]"
    assert differences.loc["chance", "mAP"].value == pytest.approx(
        means.loc["chance", "mAP"].value - 0.5
    )
    with pytest.raises(DataError, match="system 'right' has no answer for video 'd'"):
        moment_metrics.per_video(systems, gold | {"d": GOLD}, units | {"d": UNITS})


@pytest.mark.parametrize(
    "content", ["", "[]", '{"a": []}', '{"a": [{"start": 3}]}', '{"a": [{"start": 3, "end": 2}]}']
)
def test_gold_of_another_shape_is_refused(tmp_path, content):
    (tmp_path / "gold.json").write_text(content)
    with pytest.raises(DataError, match=r"gold\.json: expected"):
        moment_metrics.load_gold(tmp_path / "gold.json")
    with pytest.raises(DataError, match=r"none\.json: expected"):
        moment_metrics.load_gold(tmp_path / "none.json")


def test_spans_are_by_rank():
    found = [Moment(1, 50, 70, 0.5, 1, "", [], []), Moment(2, 0, 20, 0.5, 1, "", [], [])]
    assert moment_metrics.spans(found).tolist() == [[50, 70], [0, 20]]
    assert moment_metrics.spans([]).shape == (0, 2)


def test_a_scorer_that_knows_the_gold_finds_it_in_the_sample():
    folder = SAMPLE / "subtitles"
    gold = moment_metrics.load_gold(folder / "gold_moments.json")
    paths = {path.stem: path for path in folder.iterdir() if path.suffix != ".json"}
    units = {video: split_units(read_subtitles(paths[video]).cues) for video in gold}

    def answers(score) -> dict[str, list[np.ndarray]]:
        return {
            video: [moment_metrics.spans(ranking.choose(u, score(video, u), Limits(n=5)).moments)]
            for video, u in units.items()
        }

    def oracle(video: str, u: list[Unit]) -> Scores:
        viral = [
            0.9 if any(a - 0.1 <= x.start and x.end <= b + 0.1 for a, b in gold[video]) else 0.1
            for x in u
        ]
        return Scores(np.array(viral), np.zeros((len(u), 28)))

    def blind(video: str, u: list[Unit]) -> Scores:
        return Scores(np.random.default_rng(0).random(len(u)), np.zeros((len(u), 28)))

    systems = {"oracle": answers(oracle), "blind": answers(blind)}
    means: pd.DataFrame = (
        moment_metrics.per_video(systems, gold, units).groupby(level="system").mean()
    )
    assert means.loc["oracle", "AP@0.5"] > 0.9 and means.loc["oracle", "mAP"] > 0.6
    assert means.loc["blind", "AP@0.5"] < 0.4 and means.loc["blind", "mAP"] < 0.2
    assert (means["on sentences"] > 0.85).all()
