"""Numbers of the lessons on labels: pairs of emotions, and label errors."""

import json

import pytest

from viralbert_utils.base.files import ROOT


@pytest.fixture(scope="module")
def emotion_pairs(smoke):
    return smoke["05_emotion_correlation"].records


def test_a_label_takes_the_place_of_another(emotion_pairs):
    assert emotion_pairs["pairs"] == 27 * 26 // 2
    assert emotion_pairs["phi"]["below_zero"] > 0.5
    assert emotion_pairs["found_in_shuffled"] <= emotion_pairs["found"] / 4


def test_committed_report_of_the_pairs():
    """The sample run: pairs are found and vanish when shuffled; the smoke run has too few texts for
    that."""
    records = json.loads((ROOT / "reports" / "metrics.json").read_text(encoding="utf-8"))[
        "05_emotion_correlation"
    ]
    assert records["found"] == records["together"] + records["apart"]
    assert records["found"] >= 8
    assert records["together"] >= 6
    assert records["found_in_shuffled"] <= records["found"] / 4


def test_pairs_chosen_on_training_texts_hold_on_others(emotion_pairs):
    assert emotion_pairs["chosen"] > emotion_pairs["chosen_again"] > 0
    assert emotion_pairs["tie.labels"]["low"] > 0


def test_probabilities_tie_the_chosen_pairs_as_no_random_model_does(emotion_pairs):
    """Predicted labels of the smoke run's model are too poor for a bound; the order of its
    probabilities is not."""
    assert emotion_pairs["tie.probabilities"]["low"] > 0.03
    blind = emotion_pairs["tie.names_exchanged"]
    assert blind["low"] < 0 < blind["high"]


def test_the_map_of_decisions_is_set_beside_that_of_labels(emotion_pairs):
    """Labels of other texts are nearer to the labels than a map without any relation, which has a
    correlation of 0. Decisions have no bound here: the smoke run's model is too poor for one."""
    assert emotion_pairs["maps.alike"]["training"] > 0.2
    spread = emotion_pairs["maps.spread"]
    stronger = spread["decisions"] > spread["labels"]
    assert stronger == (emotion_pairs["maps.colours"] == "stronger")


def test_rare_classes_cannot_show_that_they_avoid_each_other(emotion_pairs):
    assert emotion_pairs["never_shown_apart"] > 0.5
    few = emotion_pairs["few_meetings"]
    assert few["low"] < few["high"] / 2
    assert emotion_pairs["exercise.expected"] == pytest.approx(2.352, abs=1e-3)


def test_labels_form_the_groups_of_goemotions(emotion_pairs):
    assert emotion_pairs["groups.labels"]["gap"] > 0
    assert emotion_pairs["groups.labels"]["p"] < 0.1


@pytest.fixture(scope="module")
def label_audit(smoke):
    return smoke["08_label_audit"].records


def test_planted_errors_are_as_many_as_said(label_audit):
    rows = label_audit["rows"]
    assert rows["wrong"] == round(rows["share"] * rows["audited"])


def test_the_audit_finds_planted_errors(label_audit):
    found = label_audit["rankings"]
    assert found["chance"] < 1.5 * label_audit["rows"]["share"]
    assert label_audit["times_chance"] > 2
    assert label_audit["adjusted"]["low"] > found["chance"]
    assert found["adjusted_margin"] > found["plain_loss"]
    assert label_audit["precision_at_k"] > 2 * label_audit["rows"]["share"]


def test_errors_that_follow_a_rule_are_hidden(label_audit):
    """In random rows the same errors are found; by a rule they are found no better than by
    chance."""
    assert label_audit["at_random"]["value"] > 1.3 * label_audit["by_chance"]
    assert label_audit["by_rule"]["value"] < 0.75 * label_audit["at_random"]["value"]


def test_a_model_that_learnt_the_site_fails_where_sites_are_exchanged(label_audit):
    site = {name: label_audit[f"site.{name}"] for name in ("same", "half", "turned", "removed")}
    assert site["same"] > site["half"] > site["turned"]
    assert site["removed"] > site["turned"] + 0.1
    assert site["same"] > label_audit["site.majority"]
    assert label_audit["odd_on_top"]["low"] > label_audit["odd_share"]


def test_who_accepts_every_proposal_spoils_right_labels(label_audit):
    assert label_audit["spoilt"] > 0
    assert label_audit["mended"] < label_audit["rows"]["wrong"]


def test_confident_learning_by_hand_is_the_modules(label_audit):
    assert label_audit["by_hand.off"] == 0


def test_corrections_come_back_whole(label_audit):
    reviewed = label_audit["reviewed"]
    assert reviewed["open"] == 0
    assert reviewed["changed"] + reviewed["confirmed"] == 2 * label_audit["rows"]["wrong"]
    assert reviewed["changed"] > 2 * label_audit["rows"]["share"] * 2 * label_audit["rows"]["wrong"]
    assert label_audit["refusal"].startswith("row 4 (the header is row 1): corrected='rage'")


def test_a_random_review_meets_errors_by_chance_alone(label_audit):
    """It reads a fifth of the rows. Drawn by the seed of the planting it would meet two fifths of
    the errors."""
    assert label_audit["mended_by_chance"] < 0.35 * label_audit["rows"]["wrong"]
    assert label_audit["changed"] > label_audit["mended_by_chance"]


def test_real_disagreements_are_few(label_audit):
    assert 0 < label_audit["disputed"]["disputed"] < 0.1 * label_audit["disputed"]["texts"]


def test_softmax_gives_one_label_at_most(label_audit):
    at_half = label_audit["answers.softmax_at_one_half"]
    assert at_half["most"] <= 1
    assert at_half["right"] == 0, "no text with several labels can be right"
    assert label_audit["loaded_in_train_mode"] is False


def test_six_classes_know_more_than_chance_in_both_definitions(label_audit):
    """Who always says yes has macro-F1 0.27, who always says no a binary one of 0.45; a random
    order has 0.5."""
    rows = label_audit["six_rows"]
    assert min(rows[part] for part in ("own", "added", "validation", "test")) > 30
    assert rows["left_out"] == 0, "the sample is split by text"
    for system in ("TF-IDF", "encoder", "encoder_with_added_rows"):
        plain, binary, area = (
            label_audit[f"six.{what}"][system] for what in ("macro_f1", "binary", "mean")
        )
        assert plain["value"] > 0.35
        assert binary["low"] > 0.53
        assert binary["value"] > plain["value"] + 0.05
        assert area["low"] > 0.65
    assert (
        set(label_audit["six.mean"])
        == set(label_audit["six.macro_f1"])
        == set(label_audit["six.binary"])
    )


def test_exercises_of_the_audit(label_audit):
    assert label_audit["exercise.forgetting"] == 2
    assert label_audit["exercise.sure"] == 2


def test_committed_report_of_the_audit():
    records = json.loads((ROOT / "reports" / "metrics.json").read_text(encoding="utf-8"))[
        "08_label_audit"
    ]
    assert records["adjusted"]["low"] > 2 * records["rows"]["share"]
    assert records["gain"]["low"] > 0.05
    assert records["left.small"]["wrong"] > 2 * records["left.chance"]
    assert records["six.macro_f1"]["encoder_with_added_rows"]["low"] > 0.45
    assert records["six.mean"]["encoder_with_added_rows"]["low"] > 0.75
