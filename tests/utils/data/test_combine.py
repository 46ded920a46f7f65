import pandas as pd

from viralbert_utils.data import combine
from viralbert_utils.data.emotions import CEDR_CLASSES, EMOTIONS

LABELS = [["joy"], ["curiosity"], ["neutral"], ["fear", "joy"]]
EMOTION_ROWS = pd.DataFrame(
    {
        "text": ["ура", "что это?", "просто факт", "боюсь и рад"],
        "labels": [[EMOTIONS.index(name) for name in names] for names in LABELS],
    },
    index=[5, 6, 7, 8],
)


def test_six_classes_leaves_out_what_has_no_counterpart():
    cedr = pd.DataFrame({"text": ["злюсь", "факт"], "labels": [[4], []]})
    table, n_left_out = combine.six_classes(EMOTION_ROWS, cedr)
    assert n_left_out == 1
    names = {row.text: [CEDR_CLASSES[i] for i in row.labels] for row in table.itertuples()}
    assert names == {
        "ура": ["joy"],
        "просто факт": ["no_emotion"],
        "боюсь и рад": ["joy", "fear"],
        "злюсь": ["anger"],
        "факт": ["no_emotion"],
    }
    assert table["origin"].value_counts().to_dict() == {"goemotions": 3, "cedr": 2}


def test_what_is_added_repeats_nothing_that_is_judged():
    def rows(texts: list[str], origin: str) -> pd.DataFrame:
        return pd.DataFrame({"text": texts, "labels": [[0]] * len(texts), "origin": origin})

    six = {
        "train": pd.concat(
            [rows(["Поезд ушёл!", "Ура, едем"], "goemotions"), rows(["Страшно"], "cedr")]
        ),
        "validation": pd.concat([rows(["Вот так"], "cedr"), rows(["Ура, едем"], "goemotions")]),
        "test": rows(["поезд ушел"], "cedr"),
    }
    native, added, left_out = combine.native_and_added(six)
    assert {name: list(part["text"]) for name, part in native.items()} == {
        "train": ["Страшно"],
        "validation": ["Вот так"],
        "test": ["поезд ушел"],
    }
    assert (list(added["text"]), left_out) == (["Ура, едем"], 1)


def test_without_cedr_mapped_rows_play_its_part():
    tables = {
        name: pd.DataFrame({"text": [f"{name} {i}" for i in range(4)], "origin": "goemotions"})
        for name in ("train", "validation", "test")
    }
    native, added, left_out = combine.native_and_added(tables)
    assert list(native["train"]["text"]) == ["train 0", "train 2"]
    assert (list(added["text"]), left_out) == (["train 1", "train 3"], 0)
    assert len(native["validation"]) == len(native["test"]) == 4
