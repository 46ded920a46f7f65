"""Tables of every kind and encoding; what cannot be read is named with its row and a remedy."""

import json

import pandas as pd
import pytest

from viralbert_utils.base.errors import DataError
from viralbert_utils.data import sources, tables


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


def test_cp1251_is_read_for_who_asks_for_it_and_no_other_old_encoding_is(tmp_path):
    path = tmp_path / "t.csv"
    for encoding in ("cp1251", "cp866", "koi8-r"):
        path.write_bytes("text;label\r\nПривет, ёж;1\r\n".encode(encoding))
        with pytest.raises(DataError, match="expected UTF-8"):
            tables.read_table(path)
        if encoding != "cp1251":
            with pytest.raises(DataError, match=f"reads well as {encoding.upper()}"):
                tables.read_table(path, cp1251=True)
    path.write_bytes("text;label\r\nПривет, ёж;1\r\n".encode("cp1251"))
    assert tables.read_table(path, cp1251=True)["text"].to_list() == ["Привет, ёж"]


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
        ("\ntext,label\nда,1\nнет,0,7\n".encode(), r"virality\.csv, line 4: expected 2 fields"),
        (
            "text,label\nда,1\nнет,0,7\n".encode(),
            r"virality\.csv, line 3: expected 2 fields \(text, label\), found 3",
        ),
        ("text,label\nда\n".encode(), r"virality\.csv, line 2: expected 2 fields.*found 1"),
        (
            'text,label\nда,1\n"нет,0\n'.encode(),
            r"virality\.csv, from line 3 on: broken CSV.*unclosed quotation",
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
            "column 'text' is missing for the set 'virality'; found title, label: rename",
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


def test_line_separators_inside_json_texts(tmp_path):
    (tmp_path / "virality.jsonl").write_text('{"text": "до\u2028после", "label": 1}\n', "utf-8")
    assert sources.load("virality", str(tmp_path)).splits["all"].at[0, "text"] == "до\u2028после"


def test_one_split_in_two_formats_is_ambiguous(write_csv):
    folder = write_csv("virality", text=["да"], label=[1])
    (folder / "virality" / "train.jsonl").write_text('{"text": "нет", "label": 0}\n', "utf-8")
    with pytest.raises(DataError, match=r"twice: train\.csv, train\.jsonl"):
        sources.load("virality", str(folder))
