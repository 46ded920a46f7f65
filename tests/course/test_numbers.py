"""Numbers that the executed notebooks recorded of their data and time. A bound fails for zero, for
the majority answer and for chance."""

import pytest


@pytest.fixture(scope="module")
def records(smoke):
    return smoke["01_data_preparation"].records


def test_planted_faults_are_all_found(records):
    assert records["planted_found"] == {
        "duplicate": 10,
        "near_duplicate": 10,
        "missing_text": 10,
        "unknown_label": 10,
    }


def test_no_text_stands_on_two_sides(records):
    assert {row["on two sides"] for row in records["rows"].values()} == {0}
    assert all(row["train"] > row["test"] > 0 for row in records["rows"].values())


def test_split_by_content_survives_new_rows(records):
    assert records["split"]["stayed"] > 0.9
    assert records["split"]["stayed_shuffled"] < 0.7


def test_the_interval_made_by_hand_is_the_functions(records):
    toy = records["toy"]
    assert toy["estimate"]["low"] == pytest.approx(toy["low"], abs=1e-3)
    assert toy["estimate"]["high"] == pytest.approx(toy["high"], abs=1e-3)
    # The correction moves both ends up where more than half of the resamples are below.
    assert toy["below"] > 0.6
    assert toy["low"] > toy["plain_low"]
    assert records["none"] == pytest.approx(0.217, abs=1e-3)


def test_minima_estimate_the_jaccard_similarity(records):
    assert records["minhash"]["jaccard"] == pytest.approx(12 / 18, abs=1e-6)
    assert abs(records["minhash"]["equal"] - 12 / 18) < 0.13


def test_one_word_does_not_do_what_the_model_does(records):
    assert 0.5 < records["one_word"]["train"] < 0.9
    assert records["one_word"]["test"] < records["virality"]["accuracy"]["value"]


def test_published_weights_fall_below_one(records):
    assert 1 <= records["pos_weight"]["below_one"] <= 27
    assert records["pos_weight"]["neutral"] < 0.5


def test_padding_to_128_is_waste(records):
    assert records["tokens"]["emotions"]["padding"] > 3
    assert records["exercise.padding_in_batches"] > 1.2
    assert records["exercise.padding_in_batches"] < records["tokens"]["emotions"]["padding"]


def test_baseline_on_emotions_beats_what_knows_nothing(records):
    systems = records["emotions"]["systems"]
    knows_nothing = max(systems["all labels"], systems["most frequent label"])
    assert knows_nothing < 0.12
    assert records["emotions"]["macro_f1"]["low"] > knows_nothing
    assert (
        0.6 < records["emotions"]["roc_auc"]["low"] < records["emotions"]["roc_auc"]["high"] < 0.999
    )
    assert records["emotions"]["binary_macro_f1"]["most frequent label"] > 0.4


def test_threshold_on_rare_labels_matters(records):
    assert (
        records["emotions"]["systems"]["plain, one threshold"]
        > 1.5 * records["emotions"]["systems"]["plain, 0.5"]
    )


def test_baseline_on_virality_beats_guessing(records):
    assert records["virality"]["roc_auc"]["low"] > 0.5
    assert records["virality"]["roc_auc"]["high"] < 0.999


def test_headlines_have_intervals(smoke):
    for page in smoke.values():
        for name, value in page.records.items():
            if name.startswith("headline."):
                assert value["low"] <= value["value"] <= value["high"]
                assert value["low"] < value["high"]


def test_a_notebook_stays_in_its_budget(smoke):
    """120 s and 4 GiB a notebook on two cores; the smoke run is far smaller. Beside the checks of
    the code, on a machine of half the speed, its longest lesson has taken 114 s."""
    for page in smoke.values():
        assert page.seconds < 180
        assert page.records["run.peak_memory_mib"] < 4096
