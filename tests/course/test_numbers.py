"""Numbers that the executed notebooks recorded. A bound fails for zero, for the majority answer and
for chance."""

import json

import pytest

from viralbert_utils.base.files import ROOT


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
    assert records["split.stayed"] > 0.9
    assert records["split.stayed_shuffled"] < 0.7


def test_published_weights_fall_below_one(records):
    assert 1 <= records["pos_weight.below_one"] <= 27
    assert records["pos_weight.neutral"] < 0.5


def test_padding_to_128_is_waste(records):
    assert records["tokens.emotions"]["padding"] > 3
    assert records["exercise.padding_in_batches"] > 1.2
    assert records["exercise.padding_in_batches"] < records["tokens.emotions"]["padding"]


def test_baseline_on_emotions_beats_what_knows_nothing(records):
    systems = records["emotions.systems"]
    knows_nothing = max(systems["all labels"], systems["most frequent label"])
    assert knows_nothing < 0.12
    assert records["emotions.macro_f1"]["low"] > knows_nothing
    assert 0.6 < records["emotions.roc_auc"]["low"] < records["emotions.roc_auc"]["high"] < 0.999
    assert records["emotions.binary_macro_f1"]["most frequent label"] > 0.4


def test_threshold_on_rare_labels_matters(records):
    assert (
        records["emotions.systems"]["plain, one threshold"]
        > 1.5 * records["emotions.systems"]["plain, 0.5"]
    )


def test_baseline_on_virality_beats_guessing(records):
    assert records["virality.roc_auc"]["low"] > 0.5
    assert records["virality.roc_auc"]["high"] < 0.999


def test_headlines_have_intervals(smoke):
    for page in smoke.values():
        for name, value in page.records.items():
            if name.startswith("headline."):
                assert value["low"] <= value["value"] <= value["high"]
                assert value["low"] < value["high"]


def test_a_notebook_stays_in_its_budget(smoke):
    """120 s and 4 GiB a notebook on two cores; the smoke run is far smaller."""
    for page in smoke.values():
        assert page.seconds < 90
        assert page.records["run.peak_memory_mib"] < 4096


@pytest.fixture(scope="module")
def pooling(smoke):
    return smoke["02_cls_vs_mean_pooling"].records


def test_the_mask_matters(pooling):
    assert pooling["padding.masked"] < 1e-5
    assert pooling["padding.forgotten"] > 0.1


def test_accuracy_of_the_majority_flatters(pooling):
    assert pooling["majority"] > 0.4
    assert pooling["exercise.majority_macro_f1"] < 0.6 * pooling["majority"]


def test_a_saved_model_answers_as_before(pooling):
    assert pooling["saved.difference"] < 1e-5


def test_verdict_follows_from_the_interval(pooling):
    gain = pooling["gain"]
    unsure = gain["low"] <= 0 <= gain["high"]
    assert pooling["verdict"].startswith("no difference") == unsure


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


def test_mistakes_cost_what_the_lesson_says(multitask):
    assert multitask["exercise.step"] == pytest.approx({"factor": 1.5, "angle": 0})
    assert multitask["mistakes.correction_left"] == pytest.approx(1 / 3, abs=1e-3)
    assert multitask["softmax.most_labels"] <= 1
    assert multitask["same_rows"]["test"] > multitask["same_rows"]["validation"]
    assert multitask["leak"]["with_leak"] > multitask["leak"]["honest"]
    assert multitask["few_texts"]["2"] < multitask["few_texts"]["16"]
    assert multitask["pos_weight.below_one"] >= 5


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


def test_stored_thresholds_decide_as_before_and_refuse_other_names(tuning):
    assert tuning["stored.same"] is True
    assert "admiration" in tuning["stored.refusal"]


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


def test_rare_classes_cannot_show_that_they_avoid_each_other(emotion_pairs):
    assert emotion_pairs["never_shown_apart"] > 0.5
    few = emotion_pairs["few_meetings"]
    assert few["low"] < few["high"] / 2
    assert emotion_pairs["exercise.expected"] == pytest.approx(2.352, abs=1e-3)


def test_labels_form_the_groups_of_goemotions(emotion_pairs):
    assert emotion_pairs["groups.labels"]["gap"] > 0
    assert emotion_pairs["groups.labels"]["p"] < 0.1


@pytest.fixture(scope="module")
def viral_moments(smoke):
    return smoke["06_viral_moments"].records


def test_calibrated_virality_beats_the_rate_for_all(viral_moments):
    """A random model has a ROC AUC of 0.5; who says yes to everyone has the F1 of the second
    figure."""
    assert viral_moments["brier"]["calibrated"] < viral_moments["brier"]["the_rate_for_all"] - 0.01
    assert viral_moments["roc_auc"]["low"] > 0.5
    assert viral_moments["f1"]["tuned"] > viral_moments["f1"]["all_viral"]
    assert viral_moments["saved.difference"] < 1e-5
    assert "position 1: expected a text" in viral_moments["refusal"]


def test_a_damaged_file_comes_back(viral_moments):
    assert viral_moments["damaged"]["repairs"] >= 5
    assert viral_moments["damaged"]["same"] > 0.98


def test_lines_of_gold_moments_score_higher(viral_moments):
    assert viral_moments["units.model"]["low"] > 0.55
    assert viral_moments["units.model"]["value"] > viral_moments["units.words"]["value"]


def test_lengths_are_those_of_people_and_kept(viral_moments):
    lengths = viral_moments["lengths"]
    assert lengths["mean"] < 22 < 33 < lengths["sum"]
    assert abs(lengths["weights"] - lengths["cuts"]) < 5
    assert viral_moments["kept_lengths"] is True


def test_moments_beat_chance(viral_moments):
    """Of the rows that `chance` is the best of, "shuffled" is a random model and "rules alone" a
    constant one."""
    assert viral_moments["moments.map"]["value"] > 1.2 * viral_moments["chance.map"]
    assert viral_moments["moments.recall"]["value"] > viral_moments["chance.recall"]
    assert viral_moments["ablation.no_model"]["value"] < -0.1
    assert viral_moments["moments.edges"]["value"] > 0.8
    assert viral_moments["sure"]["chance"] >= 3
    assert viral_moments["exercise.iou"] == pytest.approx(0.6)
    assert viral_moments["exercise.power"] == pytest.approx(0.585, abs=1e-3)


def test_the_verdict_names_as_many_metrics_as_are_sure(viral_moments):
    for rivals, n_sure in viral_moments["sure"].items():
        verdict = viral_moments["verdict"][rivals]
        assert verdict.startswith("in all 6 metrics") == (n_sure == 6)
        assert verdict.startswith("in nothing") == (n_sure == 0)


def test_every_gold_moment_is_accounted_for(viral_moments):
    kinds = sum(value for name, value in viral_moments.items() if name.startswith("kinds."))
    assert kinds == viral_moments["n_gold"] == 25
    assert viral_moments["kinds.found"] > 8


def test_files_and_the_call_of_version_2(viral_moments):
    assert viral_moments["written"]["files"] >= 5
    assert 0 <= viral_moments["written"]["clip_starts"] < 0.5
    assert viral_moments["v2.same_place"] > 0.8


def test_committed_report_of_the_moments():
    """The sample run: better than every row that knows nothing, all rules with a constant score
    included."""
    metrics = json.loads((ROOT / "reports" / "metrics.json").read_text(encoding="utf-8"))
    records = metrics["06_viral_moments"]
    assert records["moments.ap50"]["value"] > 1.3 * records["chance.ap50"]
    assert records["moments.map"]["value"] > 1.3 * records["chance.map"]
    assert records["sure"]["chance"] >= 4
    assert records["sure"]["rules"] >= 1


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
    assert label_audit["combined"]["low"] > found["chance"]
    assert found["adjusted_margin"] > found["plain_loss"]
    assert label_audit["precision_at_k"] > 2 * label_audit["rows"]["share"]


def test_confident_learning_by_hand_is_the_modules(label_audit):
    assert label_audit["by_hand.off"] == 0


def test_corrections_come_back_whole(label_audit):
    reviewed = label_audit["reviewed"]
    assert reviewed["open"] == 0
    assert reviewed["changed"] + reviewed["confirmed"] == 2 * label_audit["rows"]["wrong"]
    assert reviewed["changed"] > 2 * label_audit["rows"]["share"] * 2 * label_audit["rows"]["wrong"]
    assert label_audit["refusal"].startswith("row 2")


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
    for system in ("TF-IDF", "encoder", "encoder_with_GoEmotions"):
        plain, binary, area = (
            label_audit[f"six.{what}"][system] for what in ("macro-F1", "binary", "mean")
        )
        assert plain["value"] > 0.35
        assert binary["low"] > 0.53
        assert binary["value"] > plain["value"] + 0.05
        assert area["low"] > 0.65
    assert (
        set(label_audit["six.mean"])
        == set(label_audit["six.macro-F1"])
        == set(label_audit["six.binary"])
    )


def test_exercises_of_the_audit(label_audit):
    assert label_audit["exercise.forgetting"] == 2
    assert label_audit["exercise.sure"] == 2


def test_committed_report_of_the_audit():
    records = json.loads((ROOT / "reports" / "metrics.json").read_text(encoding="utf-8"))[
        "08_label_audit"
    ]
    assert records["combined"]["low"] > 2 * records["rows"]["share"]
    assert records["gain"]["low"] > 0.05
    assert records["left.small"]["wrong"] > 2 * records["left.chance"]
    assert records["six.macro-F1"]["encoder_with_GoEmotions"]["low"] > 0.45
    assert records["six.mean"]["encoder_with_GoEmotions"]["low"] > 0.75


@pytest.fixture(scope="module")
def export_lesson(smoke):
    return smoke["09_export_and_serve"].records


def test_an_export_answers_as_torch_does(export_lesson):
    assert export_lesson["parity"]["ONNX"] < 1e-4
    assert 1e-4 < export_lesson["parity"]["int8"] < 0.1, "eight bits are not for nothing, and near"
    assert export_lesson["neighbours"]["int8"] < 1e-4
    assert export_lesson["served"]["difference"] < 1e-4


def test_int8_is_smaller_and_costs_little(export_lesson):
    assert export_lesson["size"]["int8"] < 0.35 * export_lesson["size"]["torch"]
    assert export_lesson["f1"]["torch"] > export_lesson["f1.all_emotions"]
    assert abs(export_lesson["cost"]["value"]) < 0.03
    assert 0 < export_lesson["flipped"] < 0.02 * export_lesson["n_decisions"]
    assert export_lesson["exercise.step"] == pytest.approx(0.015)
    assert export_lesson["exercise.batch"] == 40


def test_the_service_refuses_and_says_when_to_come_again(export_lesson):
    assert export_lesson["served"]["too_many"] in (413, 422)
    assert export_lesson["load.statuses"] == "200, 429"
    assert export_lesson["load.n_refused"] > 0
    assert export_lesson["load.told"]
    assert export_lesson["load.refused"]["1"] == 0
    assert export_lesson["resident_mb"] < 400


def test_committed_report_of_the_export():
    """The sample run: twice as fast in int8, at most half a point of macro-F1."""
    metrics = json.loads((ROOT / "reports" / "metrics.json").read_text(encoding="utf-8"))
    records = metrics["09_export_and_serve"]
    assert records["faster"]["int8"] > 1.5
    assert records["cost"]["value"] > -0.01


@pytest.fixture(scope="module")
def videos(smoke):
    return smoke["07_hybrid_video_classifier"].records


def test_video_rows_are_set_aside_and_counted(videos):
    assert videos["rows"]["kept"] > 300
    assert 1 <= videos["rows"]["aside"] <= 20
    assert videos["odd_is_finite"]


def test_video_systems_beat_what_knows_nothing(videos):
    found = videos["macro_f1"]
    assert found["majority"] < 0.05
    assert (
        min(value for name, value in found.items() if name != "majority") > found["majority"] + 0.02
    )
    assert found["hybrid"] > found["majority"] + 0.08
    assert found["least_squares"] > 0.35
    assert videos["simple_minus_hybrid"]["low"] > 0
    assert "beats the hybrid" in videos["verdict"]


def test_the_cascade_is_no_worse_than_its_last_stage(videos):
    assert videos["cascade.minus_hybrid"]["low"] > 0
    stages = [videos[f"stage.{name}"] for name in ("rules", "one_vs_rest", "model")]
    assert sum(stage["coverage"] for stage in stages) == pytest.approx(1, abs=1e-5)
    assert stages[0]["precision"] > 0.8
    assert stages[0]["coverage"] > 0.02
    assert stages[1]["precision"] > stages[2]["precision"] + 0.2


def test_damage_costs_score_and_typos_cost_word_vectors_more(videos):
    kept = [value for name, value in videos.items() if name.startswith("kept_share.")]
    assert 0.1 < min(kept) <= max(kept) < 0.95
    assert videos["kept_share.typos.hybrid"] < videos["kept_share.typos.least_squares"]


def test_a_saved_hybrid_answers_as_before_and_needs_no_labels(videos):
    assert videos["saved.difference"] < 1e-5
    assert videos["metrics.without_labels"] == 0
    assert videos["exercise.luck"] == pytest.approx(0.0103, abs=2e-4)
    assert videos["exercise.by_hand"] > 0.8


def test_committed_report_of_the_videos():
    """The sample run: the cascade is above the hybrid, and its rules hold 0.95 on videos that had
    no part in them."""
    records = json.loads((ROOT / "reports" / "metrics.json").read_text(encoding="utf-8"))[
        "07_hybrid_video_classifier"
    ]
    assert records["cascade.minus_hybrid"]["low"] > 0
    assert records["macro_f1"]["cascade"] > 0.45
    assert records["macro_f1"]["hybrid"] > records["macro_f1"]["text_only"] > 0.2
    assert records["stage.rules"]["precision"] >= 0.95
    assert records["stage.rules"]["coverage"] > 0.05


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
