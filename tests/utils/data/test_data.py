import importlib
import inspect
import json
import pkgutil
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest

import viralbert_utils
from viralbert_utils.base import files
from viralbert_utils.base.errors import DataError
from viralbert_utils.data import cleaning, combine, sources, splits, tables
from viralbert_utils.data.contracts import CONTRACTS
from viralbert_utils.data.sources import SAMPLE, Dataset
from viralbert_utils.lessons import cascade, hybrid, preparation, suspects


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


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_other_formats_give_the_same_rows(tmp_path, suffix):
    table = pd.DataFrame({"text": ["Кот, «Борис»", "да\nнет"], "label": [1, 0]})
    (tmp_path / "virality").mkdir()
    path = tmp_path / "virality" / f"train.{suffix}"
    if suffix == "parquet":
        table.to_parquet(path)
    else:
        path.write_text(
            "\n".join(json.dumps(row, ensure_ascii=False) for row in table.to_dict("records")),
            "utf-8",
        )
    assert sources.load("virality", str(tmp_path)).splits["train"].to_dict("list") == table.to_dict(
        "list"
    )


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    (tmp_path / "virality.csv").write_bytes("\ufefftext,label\r\nДа,1\r\n".encode())
    assert sources.load("virality", str(tmp_path)).splits["all"].to_dict("list") == {
        "text": ["Да"],
        "label": ["1"],
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-16-le"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("virality.CSV", "text,label\nКот; пёс,1\n"),
        ("virality.csv", "text;label\r\nКот; пёс;1\r\n".replace("Кот; пёс", '"Кот; пёс"')),
        ("virality.csv", 'sep=;\r\n"text";"label"\r\n"Кот; пёс";1\r\n'),
        ("virality.csv", "sep=|\ntext|label\nКот; пёс|1\n"),
        ("virality.csv", "text\tlabel\nКот; пёс\t1\n"),
        ("virality.Tsv", "text\tlabel\r\nКот; пёс\t1\r\n"),
        ("virality.JSON", '\n [{"text": "Кот; пёс", "label": "1"}]'),
        ("virality.json", '{"text": "Кот; пёс", "label": "1"}\n'),
        ("virality.json", '{\n "text": "Кот; пёс",\n "label": "1"\n}\n'),
        ("virality.jsonl", '[{"text": "Кот; пёс", "label": "1"}]'),
        # What spreadsheets and people leave around a table.
        ("virality.csv", '\r\n\r\ntext; label;;\r\n"Кот; пёс";1;;\r\n'),
        ("virality.csv", "text|label\nКот; пёс|1\n"),
    ],
)
def test_kinds_of_tables_and_their_encodings(tmp_path, name, content, encoding):
    (tmp_path / name).write_bytes(content.encode(encoding))
    assert sources.has("virality", str(tmp_path))
    found = sources.load("virality", str(tmp_path)).splits["all"]
    assert found.to_dict("list") == {"text": ["Кот; пёс"], "label": ["1"]}


def test_a_comma_in_the_header_counts_more_than_signs_in_the_texts(tmp_path):
    (tmp_path / "t.csv").write_text('text\n"Кот, пёс; мышь"\n', "utf-8")
    assert tables.read_table(tmp_path / "t.csv")["text"].to_list() == ["Кот, пёс; мышь"]
    (tmp_path / "t.csv").write_text('"text;raw",label\nКот; пёс,1\n', "utf-8")
    assert list(tables.read_table(tmp_path / "t.csv")) == ["text;raw", "label"]


@pytest.mark.parametrize("name", ["t.xlsx", "t.txt", "t", "t.csv.gz"])
def test_an_unknown_kind_of_table_is_named_with_what_is_read(tmp_path, name):
    (tmp_path / name).write_text("text\nКот\n", "utf-8")
    with pytest.raises(
        DataError, match=r"expected one of \.csv, \.parquet, \.jsonl, \.json, \.tsv"
    ):
        tables.read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "да"}, "нет"]', r"item 1: expected an object like .* found str"),
        ('[{"text": "да"}', "t.json: not JSON"),
        ("[" * 100_000, "t.json: JSON that cannot be read"),
        (
            '{"text": {"0": "да", "1": "нет"}, "label": {"0": 1, "1": 0}}',
            "found one object of text, label; write its rows",
        ),
        ('{"data": [{"text": "да"}]}', "found one object of data; write its rows"),
        ('{"text": ' + "9" * 5000 + "}", "line 1: JSON that cannot be read"),
    ],
)
def test_bad_json_is_named(tmp_path, content, message):
    (tmp_path / "t.json").write_text(content, "utf-8")
    with pytest.raises(DataError, match=message):
        tables.read_table(tmp_path / "t.json")


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


def test_a_megabyte_of_text_in_one_row_is_read(tmp_path):
    (tmp_path / "virality.csv").write_text("text,label\n" + "ы" * 1_000_000 + ",1\n", "utf-8")
    assert len(sources.load("virality", str(tmp_path)).splits["all"].at[0, "text"]) == 1_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"virality\.csv is empty \(0 bytes\)"),
        (b"text,label\n", "a header but no rows"),
        (
            "text,label\nПривет,1\n".encode("cp1251"),
            r"line 2: expected UTF-8.*reads well as CP1251.*iconv -f CP1251",
        ),
        (
            "text,label\nПривет,1\n".encode("cp866"),
            r"line 2: expected UTF-8.*reads well as CP866.*iconv -f CP866",
        ),
        (
            "text,label\nПривет,1\n".encode("koi8-r"),
            r"line 2: .*reads well as KOI8-R.*iconv -f KOI8-R",
        ),
        (
            "text,label\nПРИВЕТ,1\n".encode("cp1251"),
            r"line 2: .*reads well as CP1251.*iconv -f CP1251",
        ),
        ("\ntext,label\nда,1\nнет,0,7\n".encode(), r"row 1 \(line 4\): expected 2 fields"),
        (
            "text,label\nда,1\nнет,0,7\n".encode(),
            r"row 1 \(line 3\): expected 2 fields \(text, label\), found 3",
        ),
        ("text,label\nда\n".encode(), r"row 0 \(line 2\): expected 2 fields.*found 1"),
        (
            'text,label\nда,1\n"нет,0\n'.encode(),
            r"row 1 \(from line 3\): broken CSV.*unclosed quotation",
        ),
        (
            "text,label\nда;1\n".encode(),
            "header is separated by commas, this row by semicolons: save the table with one",
        ),
        ("text;label\nда\t1\n".encode(), "header is separated by semicolons, this row by tabs"),
        (
            "text;label\nда;1;\n".encode(),
            "found 3; quote fields that contain semicolons or line breaks",
        ),
        ("text,label\nда,1\n".encode("utf-16")[:-1], "looks like UTF-16, but is damaged"),
        ("text,text\nда,1\n".encode(), "names the column 'text' twice"),
        (
            "title,label\nда,1\n".encode(),
            "column 'text' is missing for the set 'virality'; found title, label",
        ),
    ],
)
def test_bad_csv_names_file_row_and_remedy(tmp_path, content, message):
    (tmp_path / "virality.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"(?s){message}"):
        sources.load("virality", str(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"text": "да", ', "line 2: not JSON"), ('["да"]', "line 2: expected an object")],
)
def test_bad_jsonl_names_the_line(tmp_path, line, message):
    (tmp_path / "virality.jsonl").write_text('{"text": "да", "label": 1}\n' + line + "\n", "utf-8")
    with pytest.raises(DataError, match=message):
        sources.load("virality", str(tmp_path))


def test_bad_parquet(tmp_path):
    (tmp_path / "virality.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        sources.load("virality", str(tmp_path))


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


def test_line_separators_inside_json_texts(tmp_path):
    (tmp_path / "virality.jsonl").write_text('{"text": "до\u2028после", "label": 1}\n', "utf-8")
    assert sources.load("virality", str(tmp_path)).splits["all"].at[0, "text"] == "до\u2028после"


def test_a_broken_set_is_not_taken_for_a_missing_one(tmp_path):
    (tmp_path / "reviews").mkdir()
    assert sources.has("reviews", str(tmp_path))
    with pytest.raises(DataError, match="holds no training table"):
        preparation.load_all(str(tmp_path))


def test_one_split_in_two_formats_is_ambiguous(write_csv):
    folder = write_csv("virality", text=["да"], label=[1])
    (folder / "virality" / "train.jsonl").write_text('{"text": "нет", "label": 0}\n', "utf-8")
    with pytest.raises(DataError, match=r"twice: train\.csv, train\.jsonl"):
        sources.load("virality", str(folder))


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
    with pytest.raises(DataError, match=r"no file 'none\.csv' for the set 'virality'"):
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
    with pytest.raises(DataError, match=r"'seara/ru_go_emotions' could not be loaded.*data=sample"):
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


def test_a_table_of_ones_own_that_lacks_a_column_is_a_message(write_csv):
    table = pd.DataFrame({"a": ["да"], "b": [1]})
    tables.require_columns(table, ["b", "a"])
    with pytest.raises(DataError, match=r"^the table: no column 'c', 'd'; found a, b$"):
        tables.require_columns(table, ["c", "a", "d", "c"])
    with pytest.raises(DataError, match=r"^mine: no column 'c'; found none$"):
        tables.require_columns(pd.DataFrame(), ["c"], "mine")
    folder = write_csv("virality", text=["да"], label=[1], id=["v0001"])
    (folder / "second_annotation.csv").write_text("set,id\nvirality,v0001\n")
    with pytest.raises(
        DataError, match=r"second_annotation\.csv: no column 'label'; found set, id"
    ):
        sources.second_annotation(sources.load("virality", str(folder)))


ONE = pd.DataFrame({"text": ["да"]})
READERS = {
    "two_tasks, emotions": (
        lambda: preparation.two_tasks(ONE, ONE),
        "emotions: no column 'labels'",
    ),
    "two_tasks, virality": (
        lambda: preparation.two_tasks(ONE.assign(labels=[[1]]), ONE),
        "virality: no column 'label'",
    ),
    "six_classes": (lambda: combine.six_classes(ONE), "emotions: no column 'labels'"),
    "six_classes, cedr": (
        lambda: combine.six_classes(ONE.assign(labels=[[1]]), ONE),
        "cedr: no column 'labels'",
    ),
    "native_and_added": (
        lambda: combine.native_and_added({"test": ONE}),
        "test: no column 'origin'",
    ),
    "by_label": (lambda: splits.by_label(ONE), "no column 'labels'"),
    "by_group": (lambda: splits.by_group(ONE, "film", "label"), "no column 'film', 'label'"),
    "by_time": (lambda: splits.by_time(ONE, "day"), "no column 'day'"),
    "split_set": (lambda: splits.split_set("reviews", {"all": ONE}), "no column 'film', 'label'"),
    "n_shared": (lambda: preparation.n_shared({"train": ONE}, "title"), "train: no column 'title'"),
    "clean": (
        lambda: cleaning.clean(Dataset("mine", "here", {"all": ONE}), names=("a",)),
        "mine/all: no column 'labels'",
    ),
    "clean, text": (
        lambda: cleaning.clean(Dataset("mine", "here", {"all": ONE}), text_column="title"),
        "mine/all: no column 'title'",
    ),
    "suspects": (
        lambda: suspects.suspects(ONE, np.eye(1), np.eye(1), np.ones(1), ("a",)),
        "no column 'id'",
    ),
    "write_sheet": (
        lambda: suspects.write_sheet(ONE.rename(columns={"text": "id"}), "x.csv"),
        "no column 'text'",
    ),
}


@pytest.mark.parametrize(("read", "message"), READERS.values(), ids=READERS)
def test_functions_on_a_table_of_ones_own_name_the_missing_column(read, message):
    with pytest.raises(DataError, match=message):
        read()


def test_corrections_need_the_tables_own_columns(tmp_path):
    (tmp_path / "sheet.csv").write_text("id,text,corrected\n1,да,joy\n")
    with pytest.raises(DataError, match="the table: no column 'id', 'labels'; found text"):
        suspects.read_corrections(tmp_path / "sheet.csv", ONE)


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


TABLES = pd.DataFrame({"text": ["а"], "labels": [[1]], "label": ["x"], "id": [1]})


HANDED_ON = {
    cascade.Cascade.scores,
    hybrid.Hybrid.predict,
}  # what they get goes to another one of the class first


def functions_of_tables():
    """Every public function of the module with a parameter that is a table, or tables by split."""
    for found in pkgutil.walk_packages(viralbert_utils.__path__, "viralbert_utils."):
        module = importlib.import_module(found.name)
        name = found.name.rpartition(".")[2]
        if name in ("lesson", "plots", "charts"):
            continue  # they show what a lesson has made, not what somebody brings
        owners = [
            module,
            *(
                c
                for c in vars(module).values()
                if isinstance(c, type) and c.__module__ == module.__name__
            ),
        ]
        for owner in owners:
            for function in vars(owner).values():
                if (
                    not inspect.isfunction(function)
                    or function in HANDED_ON
                    or function.__module__ != module.__name__
                    or (function.__name__.startswith("_"))
                ):
                    continue
                for parameter in inspect.signature(function).parameters.values():
                    if parameter.annotation in (
                        "pd.DataFrame",
                        "dict[str, pd.DataFrame]",
                        "Mapping[str, pd.DataFrame]",
                    ):
                        yield pytest.param(
                            function,
                            parameter,
                            id=f"{name}.{function.__qualname__}-{parameter.name}",
                        )


@pytest.mark.parametrize(("function", "parameter"), list(functions_of_tables()))
@pytest.mark.parametrize(
    "wrong", [[{"text": "а"}], {"text": ["а"], "labels": [[1]]}, "t.csv", None, np.zeros((2, 2))]
)
def test_what_is_no_table_is_an_error_that_says_so(function, parameter, wrong):
    given = {}
    for name, other in inspect.signature(function).parameters.items():
        if name == parameter.name:
            given[name] = wrong
        elif other.annotation == "pd.DataFrame":
            given[name] = TABLES
        elif other.default is other.empty and other.kind is not other.VAR_KEYWORD:
            given[name] = MagicMock()
    with pytest.raises(DataError, match=r"expected (a pandas\.DataFrame|tables by split)"):
        function(**given)
