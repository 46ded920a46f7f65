"""Where data sets come from: the sample, a folder, the hub."""

import pandas as pd
import pytest

from viralbert_utils.base import files
from viralbert_utils.base.errors import DataError
from viralbert_utils.data import sources
from viralbert_utils.data.contracts import CONTRACTS
from viralbert_utils.data.sources import SAMPLE
from viralbert_utils.lessons import preparation


def test_sample_has_every_set_but_cedr():
    assert [name for name in CONTRACTS if sources.has(name, "sample")] == [
        "emotions",
        "virality",
        "reviews",
        "videos",
    ]
    loaded = sources.load("emotions")
    assert list(loaded.splits) == ["all"]
    assert loaded.files[0].sha256 == files.sha256(SAMPLE / "emotions.csv")


def test_folder_in_the_hub_layout(write_csv):
    folder = write_csv("ru_go_emotions", ru_text=["Да"], text=["Yes"], labels=["[4]"], id=["x"])
    write_csv(
        "ru_go_emotions", "validation", ru_text=["Нет"], text=["No"], labels=["[10]"], id=["y"]
    )
    loaded = sources.load("emotions", str(folder))
    assert list(loaded.splits) == ["train", "validation"]
    # The Russian column, never the English one beside it.
    assert loaded.splits["train"]["text"].tolist() == ["Да"]
    assert loaded.n_rows == 2


def test_two_annotators_may_spell_otherwise(write_csv, tmp_path):
    folder = write_csv("emotions", id=["a", "b"], text=["да", "нет"], labels=["[17]", "2|3"])
    path = folder / "second_annotation.csv"
    path.write_text("set;id;label\nemotions;a;Радость\nemotions;b;anger, Annoyance\n", "utf-8")
    both = sources.second_annotation(sources.load("emotions", str(folder)))
    assert both["first"].to_list() == both["second"].to_list() == [[17], [2, 3]]
    path.write_text("set,id,label\nemotions,a,счастье\n", "utf-8")
    with pytest.raises(
        DataError, match=r"second_annotation\.csv: the second label .*'счастье' is neither"
    ):
        sources.second_annotation(sources.load("emotions", str(folder)))


def test_missing_folder_set_split_and_name(tmp_path, write_csv):
    with pytest.raises(
        DataError, match="does not exist; give 'sample', 'hub' or an existing folder"
    ):
        sources.load("virality", str(tmp_path / "nowhere"))
    with pytest.raises(
        DataError, match=r"expected emotions/train.csv or ru_go_emotions/train.csv there"
    ):
        sources.load("emotions", str(tmp_path))
    folder = write_csv("virality", "test", text=["да"], label=[1])
    with pytest.raises(DataError, match=r"holds no training table.*found \['test\.csv'\]"):
        sources.load("virality", str(folder))
    with pytest.raises(DataError, match="unknown data set 'virulity'; known sets: emotions"):
        sources.load("virulity")


def test_a_broken_set_is_not_taken_for_a_missing_one(tmp_path):
    (tmp_path / "reviews").mkdir()
    assert sources.has("reviews", str(tmp_path))
    with pytest.raises(DataError, match="holds no training table"):
        preparation.load_all(str(tmp_path))


def test_load_all_needs_emotions_and_virality(write_csv):
    folder = write_csv("emotions", text=["да"], labels=["[4]"])
    with pytest.raises(DataError, match="no data set 'virality'"):
        preparation.load_all(str(folder))
    own = folder / "own.csv"
    own.write_text("text,label\nда,1\n", "utf-8")
    assert list(preparation.load_all(str(folder), {"virality": str(own)})) == [
        "emotions",
        "virality",
    ]
    with pytest.raises(
        DataError,
        match=r"no such file: none\.csv; expected a table for the set 'virality'.*check its name",
    ):
        preparation.load_all(str(folder), {"virality": "none.csv"})


def test_max_rows_takes_the_first(write_csv):
    loaded = preparation.load_all("sample", max_rows=5)
    assert {len(table) for dataset in loaded.values() for table in dataset.splits.values()} == {5}


def test_virality_has_no_hub_source():
    with pytest.raises(DataError, match=r"no public hub source.*virality_file="):
        sources.load("virality", "hub")


def test_hub_out_of_reach_says_what_to_do(monkeypatch):
    import datasets

    def unreachable(*_: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setattr(sources.hub, "out_of_reach", lambda: "no route")
    with pytest.raises(
        DataError, match=r"'seara/ru_go_emotions' could not be loaded.*the sample.*--data"
    ):
        sources.load("emotions", "hub")


def test_hub_format_from_a_local_folder(tmp_path):
    """The loading code of the hub, on a folder as `push_to_hub` writes it."""
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    from viralbert_utils.data.emotions import EMOTIONS

    label = ClassLabel(names=list(EMOTIONS))
    features = Features(
        {
            "ru_text": Value("string"),
            "text": Value("string"),
            "labels": Sequence(label),
            "id": Value("string"),
        }
    )
    rows = {
        "ru_text": ["Да", "Нет"],
        "text": ["Yes", "No"],
        "labels": [[4], [10, 3]],
        "id": ["a", "b"],
    }
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        Dataset.from_dict(rows, features).to_parquet(
            tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        )
    loaded = sources.load("emotions", "hub", str(tmp_path))
    assert set(loaded.splits) == {"train", "validation", "test"}
    assert loaded.splits["test"]["text"].tolist() == ["Да", "Нет"]
    assert [list(ids) for ids in loaded.splits["test"]["labels"]] == [[4], [10, 3]]


def test_hub_class_names_become_words(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features(
        {
            "movie_name": Value("string"),
            "content": Value("string"),
            "grade3": ClassLabel(names=["Bad", "Good"]),
        }
    )
    rows = {"movie_name": ["Кино"], "content": ["Хорошо"], "grade3": [1]}
    Dataset.from_dict(rows, features).to_parquet(tmp_path / "train.parquet")
    loaded = sources.load("reviews", "hub", str(tmp_path))
    assert loaded.splits["all"].to_dict("list") == {
        "film": ["Кино"],
        "text": ["Хорошо"],
        "label": ["Good"],
    }


def test_saved_sets_replace_older_ones_whole(tmp_path):
    table = pd.DataFrame({"text": ["да"], "labels": [[1, 2]]})
    sources.save_sets(
        {"old": {"train": table}, "emotions": {"train": table, "all": table}}, tmp_path / "t"
    )
    sources.save_sets({"emotions": {"train": table}}, tmp_path / "t")
    assert sources.load_tables(tmp_path / "t" / "emotions")["train"]["labels"].tolist() == [[1, 2]]
    assert [
        path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.parquet"))
    ] == ["t/emotions/train.parquet"]
    with pytest.raises(DataError, match="run the notebook that writes them first"):
        sources.load_tables(tmp_path / "t" / "old")


def test_second_annotation_belongs_to_its_own_source(write_csv):
    loaded = sources.load("virality")
    both = sources.second_annotation(loaded)
    assert len(both) == 400
    assert set(both["first"]) == set(both["second"]) == {"0", "1"}
    folder = write_csv("virality", text=["да"], label=[1], id=["v0001"])
    assert sources.second_annotation(sources.load("virality", str(folder))).empty


def test_interrupted_writing_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "card.json"
    files.write_whole(path, "old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


def test_videos_get_one_text_of_title_and_description(write_csv):
    folder = write_csv(
        "videos", title=["Серия 1", "Серия 2"], description=["", "О коте"], label=["a", "a"]
    )
    assert sources.load("videos", str(folder)).splits["train"]["text"].tolist() == [
        "Серия 1",
        "Серия 2 О коте",
    ]


@pytest.mark.parametrize("name", ["emotions", "cedr", "virality", "reviews", "videos"])
def test_real_data_folder_loads_as_it_stands(name, shared_data):
    loaded = sources.load(name, str(shared_data))
    assert loaded.n_rows > 500
    assert loaded.splits["train"]["text"].str.contains("[а-я]").mean() > 0.9
