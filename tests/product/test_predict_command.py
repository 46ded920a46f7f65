"""`viralbert predict` with a model that knows two words."""

import io
import json
import os
import sys
import threading

import pytest

from tests.product.two_words import rows
from viralbert.cli import main


def test_predict_prints_a_line_of_json_for_each_text(loaded, capsys):
    assert main(["predict", "Кот ушёл.", "Дождь."]) == 0
    first, second = rows(capsys.readouterr().out)
    assert (first["text"], first["viral_score"], first["is_viral"]) == ("Кот ушёл.", 0.9, True)
    assert first["emotions"] == [{"name": "joy", "russian": "радость", "probability": 0.9}]
    assert second["is_viral"] is False
    assert loaded == ["shipped"], "without --model the one that comes with the package"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "\ufeffКот.\r\n\r\nДождь.\n"),
        ("t.csv", 'id,text\n1,Кот.\n2,""\n3,Дождь.\n'),
        ("t.jsonl", '{"text": "Кот."}\n{"text": ""}\n{"text": "Дождь."}\n'),
        ("T.JSONL", '{"text": "Кот."}\n\ufeff{"text": ""}\n{"text": "Дождь."}\n'),
        ("T.CSV", 'id,text\n1,Кот.\n2,""\n3,Дождь.\n'),
        ("t.Tsv", "id\ttext\n1\tКот.\n2\t\n3\tДождь.\n"),
        ("t.json", '[\n {"text": "Кот."},\n {"text": ""},\n {"text": "Дождь."}\n]'),
        ("lines.json", '{"text": "Кот."}\n{"text": ""}\n{"text": "Дождь."}\n'),
        ("excel.csv", "sep=;\r\ntext;n\r\nКот.;1,5\r\n;2\r\nДождь.;3\r\n"),
        ("T.TXT", "\ufeffКот.\n\n\ufeffДождь."),
        ("title.csv", "ID;Text;\n1;Кот.;\n2;;\n3;Дождь.;\n"),
    ],
)
def test_predict_reads_files_and_keeps_every_row(loaded, capsys, tmp_path, name, content):
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be"):
        (tmp_path / name).write_bytes(content.encode(encoding))
        assert main(["predict", "--file", str(tmp_path / name), "--model", "mine"]) == 0
        assert [row["text"] for row in rows(capsys.readouterr().out)] == ["Кот.", "", "Дождь."]
    assert loaded == ["mine"] * 4


@pytest.mark.parametrize("name", ["t.xlsx", "t.XLS", "t.ods", "t.md", "t.csv.gz", "texts"])
def test_an_unknown_kind_of_file_is_never_taken_for_lines(loaded, capsys, tmp_path, name):
    (tmp_path / name).write_text("id,text\n1,Кот.\n", encoding="utf-8")
    assert main(["predict", "--file", str(tmp_path / name)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert all(
        kind in said.err for kind in (name, ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt")
    )


@pytest.mark.parametrize(
    "line",
    ["id\ttext", "text;label", '"Text",n', '{"text": "Кот."}', '[{"text": "Кот."}]', '["Кот."]'],
)
def test_a_table_without_its_ending_is_never_taken_for_lines(
    loaded, capsys, tmp_path, monkeypatch, line
):
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "t.txt").write_bytes(f"{line}\n1\tКот.\n".encode(encoding))
        assert main(["predict", "--file", str(tmp_path / "t.txt")]) == 1
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper((tmp_path / "t.txt").open("rb")))
        assert main(["predict", "--file", "-"]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("found what begins a table") == 2


def test_a_pipe_has_no_ending_and_its_bytes_tell_the_encoding(
    loaded, capsys, tmp_path, monkeypatch
):
    pipe = tmp_path / "63"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=["Кот.\nДождь.\n".encode("utf-16")])
    writer.start()
    assert main(["predict", "--file", str(pipe)]) == 0
    writer.join()
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO("\ufeffКот.\nДождь.".encode())))
    )
    assert main(["predict", "--file", "-"]) == 0
    assert [row["text"] for row in rows(capsys.readouterr().out)] == ["Кот.", "Дождь."] * 2


def test_predict_reads_the_standard_input(loaded, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Кот.\nДождь."))
    assert main(["predict", "--file", "-"]) == 0
    assert [row["text"] for row in rows(capsys.readouterr().out)] == ["Кот.", "Дождь."]


def test_predict_prints_what_is_no_character(loaded, capsys, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "Кот \\ud83d"}\n', encoding="utf-8")
    assert main(["predict", "--file", str(tmp_path / "t.jsonl")]) == 0
    assert rows(capsys.readouterr().out)[0]["text"] == "Кот ?"


def test_predict_names_what_it_cannot_read(loaded, capsys, tmp_path):
    (tmp_path / "no.csv").write_text("title\nКот\n", encoding="utf-8")
    (tmp_path / "old.txt").write_bytes("Кот.\n".encode() + "Дождь.\n".encode("cp1251"))
    for arguments, message in (
        ([], "expected texts, --file or --table, found none of them: viralbert predict 'Кот"),
        (["Кот", "--file", "-"], "found texts and --file; give one of them"),
        (["Кот", "--file", "-", "--table", "a.csv"], "found texts and --file and --table; give"),
        (
            ["--file", str(tmp_path / "no.csv")],
            "no column 'text'; found title: rename the column of the texts to text",
        ),
        (
            ["--file", str(tmp_path / "old.txt")],
            "old.txt, line 2: expected UTF-8, found byte 0xc4 (it reads well as CP1251); convert "
            "it first: iconv",
        ),
        (["--file", str(tmp_path / "none.txt")], "none.txt; check its name and the folder"),
        (["--file", str(tmp_path / "none.csv")], "none.csv; check its name and the folder"),
        (["--file", str(tmp_path)], "is a folder; expected a file"),
    ):
        assert main(["predict", *arguments]) == 1
        assert message in capsys.readouterr().err


def test_a_missing_model_says_who_writes_it(capsys, tmp_path):
    assert main(["predict", "Кот", "--model", str(tmp_path / "none")]) == 1
    assert "viralbert run --only 06" in capsys.readouterr().err


def test_json_lines_hold_no_control_characters(loaded, capsys):
    text = "кот\x9b2J\u202e\x7f\x1b\n!"
    assert main(["predict", text]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable() and json.loads(line)["text"] == text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file: none.csv; check its name"),
        ("none.txt", None, "no such file: none.txt; check its name"),
        ("empty.csv", b"", "empty.csv is empty (0 bytes); expected a table"),
        ("rows.csv", b"text\n", "rows.csv has a header but no rows"),
        ("title.csv", b"title\nx\n", "title.csv: no column 'text'; found title"),
        ("empty.txt", b"", "empty.txt: expected a text a line, found none; write at least one"),
        ("mark.txt", b"\xef\xbb\xbf", "mark.txt: expected a text a line, found none"),
        ("t.txt", b"id,text\n1,x\n", "t.txt: expected a text a line, found what begins a table"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_a_file_without_texts_is_refused_before_a_model_is_loaded(
    capsys, tmp_path, monkeypatch, name, content, message
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["predict", "--file", name]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("no_model")
def test_an_empty_standard_input_has_no_text(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["predict", "--file", "-"]) == 1
    assert "the standard input: expected a text a line, found none" in capsys.readouterr().err


def test_empty_texts_are_answered_and_counted(loaded, capsys, tmp_path):
    (tmp_path / "t.txt").write_text("Кот.\n\n \n", encoding="utf-8")
    for arguments, said in (
        (["--file", str(tmp_path / "t.txt")], "2 empty texts: all probabilities are 0\n"),
        ([""], "1 empty text: all probabilities are 0\n"),
        (["Кот."], ""),
    ):
        assert main(["predict", *arguments]) == 0
        printed = capsys.readouterr()
        assert printed.err.removeprefix("viralbert predict: ") == said
        assert len(rows(printed.out)) == (3 if "--file" in arguments else 1)
