"""Numbers of the lessons that train: pooling, several tasks, thresholds, pretraining."""

import json

import pytest

from viralbert_utils.base.files import ROOT


@pytest.fixture(scope="module")
def pooling(smoke):
    return smoke["02_cls_vs_mean_pooling"].records


def test_the_mask_matters(pooling):
    assert pooling["padding"]["masked"] < 1e-5
    assert pooling["padding"]["forgotten"] > 0.1


def test_accuracy_of_the_majority_flatters(pooling):
    assert pooling["majority"] > 0.4
    assert pooling["exercise.majority_macro_f1"] < 0.6 * pooling["majority"]


def test_a_saved_model_answers_as_before(pooling):
    assert pooling["saved.difference"] < 1e-5


def test_verdict_follows_from_the_interval(pooling):
    gain = pooling["gain"]
    unsure = gain["low"] <= 0 <= gain["high"]
    assert (pooling["verdict"] == "not told apart") == unsure
    # The verdict names what it holds for: films, not seeds.
    assert unsure or "with these trainings" in pooling["verdict"]


def test_the_luck_of_the_seed_is_measured_apart(pooling):
    assert pooling["seeds"]["p"] >= pooling["seeds"]["least_p"]
    assert pooling["seeds"]["apart"] >= 0


def test_committed_report_of_the_poolings():
    """The sample run: the mean beats the majority and what knows nothing, by a margin that chance
    does not give."""
    metrics = json.loads((ROOT / "reports" / "metrics.json").read_text(encoding="utf-8"))
    records = metrics["02_cls_vs_mean_pooling"]
    best = next(row for row in metrics["headline"] if "mean pooling" in row["what"])
    assert best["low"] > records["macro_f1"]["always the majority"] + 0.1
    assert records["accuracy.mean"]["low"] > records["majority"] - 0.05
    assert len(records["cuts"]) == 5


@pytest.fixture(scope="module")
def multitask(smoke):
    return smoke["03_multitask_pcgrad"].records


def test_our_pcgrad_is_the_librarys_and_half_passes_are_whole_ones(multitask):
    assert multitask["half_passes.off"] < 1e-5
    assert multitask["pcgrad.off"] < 1e-5
    assert multitask["pcgrad.weights_off"] < 1e-5
    assert (
        multitask["pcgrad.least_weight"] > 1.05
    )  # the gradients oppose each other: there was something to project


def test_computing_frozen_layers_once_changes_no_loss(multitask):
    assert multitask["cache.loss_off"] < 1e-3


def test_a_surgery_changes_nothing_where_nothing_is_shared(multitask):
    assert multitask["first_stage.off"] == 0


def test_the_verdict_on_surgery_is_a_sentence_about_it(multitask):
    assert "PCGrad" in multitask["verdict"]
    assert 0 < multitask["conflicts"]["sum"] < 1
    # Same weights and same batch: the systems part after their first update.
    assert multitask["cosines.same_start"] is True


def test_mistakes_cost_what_the_lesson_says(multitask):
    assert multitask["exercise.step"] == pytest.approx({"factor": 1.5, "angle": 0})
    assert multitask["mistakes.correction_left"] == pytest.approx(1 / 3, abs=1e-3)
    assert multitask["softmax.most_labels"] <= 1
    assert multitask["same_rows"]["test"] > multitask["same_rows"]["validation"]
    assert multitask["leak"]["with_leak"] > multitask["leak"]["honest"]
    assert multitask["few_texts"]["2"] < multitask["few_texts"]["16"]
    assert multitask["pos_weight.below_one"] >= 5


def test_a_longer_step_is_no_larger_learning_rate_under_adamw(multitask):
    assert multitask["longer_step"]["SGD"] > 0.05
    assert multitask["longer_step"]["AdamW"] < 1e-5 < multitask["third_longer"]["AdamW"] < 0.05


def test_silent_bugs_of_stages_are_seen(multitask):
    assert multitask["toy.gradient"] > 0
    assert multitask["toy.moved"]["as_written"] == 0
    assert multitask["toy.moved"]["repaired"] > 0.05
    assert multitask["toy.stale"] > 0.05
    assert multitask["cache.notices"] is True


def test_a_weight_puts_one_half_where_the_lesson_says(multitask):
    assert multitask["half_of_toy"] == pytest.approx(0.5, abs=1e-3)


def test_a_saved_multitask_model_answers_as_before(multitask):
    assert multitask["saved.difference"] < 1e-5


@pytest.fixture(scope="module")
def tuning(smoke):
    return smoke["04_threshold_tuning"].records


def test_one_sort_finds_what_the_module_finds(tuning):
    assert tuning["search.off"] < 1e-9
    assert tuning["search.f1_off"] < 1e-6
    assert tuning["exercise.ties"] == pytest.approx(0.75)
    assert tuning["exercise.cost"] == pytest.approx(tuning["searched_cost"], abs=0.05)


def test_tuned_thresholds_beat_what_knows_nothing(tuning):
    """All labels for every text is what a threshold of zero gives; scores by chance have a ROC AUC
    of 0.5."""
    found = tuning["macro_f1"]
    assert found["shrunk"] > max(found["all labels"], found["0.5"]) + 0.005
    assert tuning["roc_auc"]["low"] > 0.5


def test_thresholds_look_better_on_their_own_rows(tuning):
    assert tuning["on_tuning_rows"]["per class"] > tuning["macro_f1"]["per class"] + 0.01
    assert tuning["optimism"]["per class"] > 0.01
    assert tuning["optimism"]["per class"] > tuning["optimism"]["one"]
    assert (
        tuning["curve.fewest"]["per class, own rows"] > tuning["curve.fewest"]["per class"] + 0.05
    )
    replay = tuning["replay"]
    assert replay["apparent"] == pytest.approx(replay["real"] + replay["optimism"], abs=1e-5)


def test_shrinkage_steadies_thresholds(tuning):
    assert tuning["width"]["shrunk"] < 0.8 * tuning["width"]["per_class"]


def test_calibration_does_what_it_can(tuning):
    assert tuning["changed.temperature"] == 0
    assert tuning["changed.platt"] > 0
    assert tuning["average_precision"]["mean"] > tuning["average_precision"]["chance"] + 0.02


def test_each_class_is_strong_weak_or_unclear_once(tuning):
    lists = [tuning[f"classes.{kind}"] for kind in ("strong", "weak_rare", "weak_frequent")]
    named = [name for listed in lists if listed != "no class" for name in listed.split(", ")]
    assert len(named) == len(set(named))
    assert 20 <= len(named) + tuning["classes.unclear"] <= 28
    ahead = tuning["classes.frequent_ahead"]
    clear = ahead["low"] > 0 or ahead["high"] < 0
    assert clear == (tuning["classes.verdict"] != "not told apart from")


def test_stored_thresholds_decide_as_before_and_refuse_other_names(tuning):
    assert tuning["stored.same"] is True
    assert "admiration" in tuning["stored.refusal"]
    assert tuning["stored.aims_same"] is True


@pytest.fixture(scope="module")
def pretraining_lesson(smoke):
    return smoke["10_pretrain_the_encoder"].records


def test_masks_follow_the_rule_and_heads_start_at_neighbours(pretraining_lesson):
    fate = pretraining_lesson["fate"]
    assert fate["mask"] == pytest.approx(0.8, abs=0.03)
    assert fate["stays"] == pytest.approx(0.1, abs=0.03)
    assert pretraining_lesson["attention.back"] > 2 * pretraining_lesson["attention.by_chance"]
    assert pretraining_lesson["loss.unigram"] < pretraining_lesson["loss.uniform"] - 0.5


def test_shipped_layers_know_more_than_counts(pretraining_lesson):
    """The record of the real run: far above who knows nothing and above who knows the token
    before."""
    found = {
        name: pretraining_lesson[f"recorded.{name}"] for name in ("model", "bigram", "unigram")
    }
    assert found["model"]["low"] > found["bigram"]["high"] > found["unigram"]["high"]
    assert found["model"]["value"] > 2 * found["unigram"]["value"]
    apart = {
        when: pretraining_lesson["senses.within"][when] - pretraining_lesson["senses.across"][when]
        for when in ("before", "after")
    }
    assert apart["after"] > 3 * apart["before"]
    assert (
        pretraining_lesson["exercise.read"]["tokens"]
        == pretraining_lesson["recorded.steps"] * 64 * 64
    )
