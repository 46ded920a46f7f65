import json

import pandas as pd
import pytest
import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from viralbert import rewriting, translation
from viralbert.cli import main
from viralbert_utils.base.errors import DataError
from viralbert_utils.data import sources, tables


@pytest.fixture(scope="module")
def tiny_marian(tmp_path_factory):
    """A folder with a random Marian model and a SentencePiece tokenizer, in the hub's format."""
    folder = tmp_path_factory.mktemp("marian")
    corpus = folder / "corpus.txt"
    texts = sources.load("emotions").splits["all"]["text"].tolist()[:400]
    english = [
        "thank you very much my friend",
        "what a day",
        "i am so happy for you",
        "this is not what i wanted",
    ] * 20
    corpus.write_text("\n".join(texts + english), encoding="utf-8")
    for side in ("source", "target"):
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus),
            model_prefix=str(folder / side),
            vocab_size=400,
            minloglevel=2,
            hard_vocab_limit=False,
        )
        (folder / f"{side}.model").rename(folder / f"{side}.spm")
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "source.spm"))
    vocabulary = {"</s>": 0, "<unk>": 1}
    vocabulary |= {
        p: i
        for i, p in enumerate((pieces.id_to_piece(i) for i in range(3, pieces.get_piece_size())), 2)
    }
    vocabulary["<pad>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    tokenizer = MarianTokenizer(
        str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json")
    )
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=len(vocabulary),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=128,
        pad_token_id=vocabulary["<pad>"],
        eos_token_id=0,
        decoder_start_token_id=vocabulary["<pad>"],
        forced_eos_token_id=0,
    )
    model = MarianMTModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(tiny_marian):
    return translation.load_model(str(tiny_marian))


TEXTS = ["thank you very much", "", "what a day", "thank you very much", "   "]


def test_translates_each_text_once_and_never_an_empty_one(loaded, tmp_path):
    result = translation.translate(
        TEXTS, *loaded, kept=tmp_path / "kept.jsonl", batch_size=2, n_beams=1, max_tokens=20
    )
    assert result[1] is None
    assert result[4] is None
    assert result[0] == result[3]
    assert all(text != "" for text in result)
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 2


def test_an_interrupted_run_goes_on(loaded, tmp_path, monkeypatch):
    kept = tmp_path / "kept.jsonl"
    tokenizer, model = loaded
    whole = translation.translate(
        TEXTS, tokenizer, model, kept=tmp_path / "other.jsonl", n_beams=1, max_tokens=20
    )
    calls = []
    generate = model.generate

    def fails_at_the_second(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(*args, **kwargs)

    monkeypatch.setattr(model, "generate", fails_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        translation.translate(
            TEXTS, tokenizer, model, kept=kept, batch_size=1, n_beams=1, max_tokens=20
        )
    with kept.open("a") as file:
        file.write('{"key": "cut off in the mi')  # as a killed process leaves it
    again = translation.translate(
        TEXTS, tokenizer, model, kept=kept, batch_size=1, n_beams=1, max_tokens=20
    )
    assert len(calls) == 3
    assert again == whole
    assert (
        translation.translate(TEXTS, tokenizer, model, kept=kept, n_beams=1, max_tokens=20) == whole
    )
    assert len(calls) == 3


def test_too_long_texts_are_left_out_not_cut(loaded, tmp_path):
    texts = ["what a day", "what a day " * 10]
    result = translation.translate(
        texts, *loaded, kept=tmp_path / "k.jsonl", n_beams=1, max_tokens=20
    )
    assert result[1] is None


def test_command_writes_the_same_rows_with_russian_text(tiny_marian, tmp_path, capsys):
    source, target = tmp_path / "en.csv", tmp_path / "ru.csv"
    pd.DataFrame({"text": TEXTS, "labels": ["[1]", "[2]", "[3]", "[1]", "[4]"]}).to_csv(
        source, index=False
    )
    assert (
        main(
            [
                "translate",
                "--file",
                str(source),
                "--output",
                str(target),
                "--model",
                str(tiny_marian),
            ]
        )
        == 0
    )
    written = tables.read_table(target)
    assert list(written.columns) == ["ru_text", "text", "labels"]
    assert set(written["labels"]) <= {"[1]", "[3]"}
    assert written["ru_text"].str.len().min() > 0
    assert f"{len(written)} rows written" in capsys.readouterr().out


def test_bad_arguments_are_named(tmp_path, capsys):
    source = tmp_path / "en.csv"
    source.write_text("title\nhello\n")
    assert main(["translate", "--file", str(source), "-o", "out.csv"]) == 1
    assert "'text'; found title: name the column of the texts" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"translation model '.*nowhere' could not be loaded"):
        translation.load_model(str(tmp_path / "nowhere"))


def test_translations_of_another_model_are_not_used(tiny_marian, loaded, tmp_path, caplog):
    kept = tmp_path / "kept.jsonl"
    tokenizer, model = loaded
    options = {"kept": kept, "n_beams": 1, "max_tokens": 20}
    first = translation.translate(TEXTS, tokenizer, model, **options)
    assert not caplog.messages
    torch.manual_seed(1)
    other = MarianMTModel(model.config).eval()
    with torch.inference_mode():
        other.final_logits_bias[:, 5:9] += 5.0  # so that it says something else
    expected = translation.translate(
        TEXTS, tokenizer, other, kept=tmp_path / "new.jsonl", n_beams=1, max_tokens=20
    )
    assert expected != first
    assert translation.translate(TEXTS, tokenizer, other, **options) == expected
    assert "2 texts of another model or other settings" in caplog.text
    # Nor those of a wider search; and both models' are still there.
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 4
    translation.translate(TEXTS, tokenizer, model, kept=kept, n_beams=2, max_tokens=20)
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 6
    again, _ = translation.load_model(str(tiny_marian))
    assert translation.translate(TEXTS, again, model, **options) == first
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 6


def test_lines_of_before_that_name_no_model_are_not_used(loaded, tmp_path):
    kept = tmp_path / "kept.jsonl"
    kept.write_text(json.dumps({"key": rewriting._key("what a day"), "ru": "старое"}) + "\n")
    (russian,) = translation.translate(["what a day"], *loaded, kept=kept, n_beams=1, max_tokens=20)
    assert russian != "старое"


def english_set(folder):
    """A set in the hub's format, as the published GoEmotions: ids of the emotions in a list."""
    for split, rows in {"train": 3, "validation": 2, "test": 1}.items():
        texts = ["what a day", "thank you very much", "i am so happy for you"][:rows]
        pd.DataFrame(
            {"text": texts, "labels": [[1], [2, 27], []][:rows], "id": list("abc")[:rows]}
        ).to_parquet(folder / f"{split}.parquet")


def test_one_command_fetches_and_translates_a_set_of_the_hub(tiny_marian, tmp_path, capsys):
    hub_set, output = tmp_path / "hub", tmp_path / "mydata"
    hub_set.mkdir()
    english_set(hub_set)
    command = ["translate", "--hub", str(hub_set), "-o", str(output), "--model", str(tiny_marian)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"3 rows written to {output}/emotions/train.csv, 0 left" in said
    loaded = sources.load("emotions", str(output)).splits
    assert {split: len(table) for split, table in loaded.items()} == {
        "train": 3,
        "validation": 2,
        "test": 1,
    }
    written = tables.read_table(output / "emotions" / "train.csv")
    assert list(written.columns) == ["ru_text", "text", "labels", "id"]
    assert loaded["train"]["text"].tolist() == written["ru_text"].tolist()
    assert loaded["train"]["labels"].tolist() == ["[1]", "[2, 27]", "[]"]
    before = (output / "emotions" / "train.csv").read_bytes()
    assert main(command) == 0  # a second run translates nothing anew
    assert (output / "emotions" / "train.csv").read_bytes() == before
    assert len((output / "emotions" / "train.csv.translations.jsonl").read_text().splitlines()) == 3


def test_the_manual_shows_what_a_translation_says(
    tiny_marian, tmp_path, capsys, monkeypatch, manual
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub").mkdir()
    english_set(tmp_path / "hub")
    assert main(f"translate --hub hub --output mydata --model {tiny_marian}".split()) == 0
    manual("own-data.md", capsys.readouterr().out)


def test_the_published_set_is_asked_for_in_its_simple_form(monkeypatch, tmp_path):
    asked = []

    def load(*arguments):
        asked.append(arguments)
        raise DataError("no network here")

    monkeypatch.setattr(translation.sources, "load", load)
    name = "google-research-datasets/go_emotions"
    for config, expected in ((None, "simplified"), ("raw", "raw")):
        with pytest.raises(DataError, match="no network"):
            translation.translate_hub(name, str(tmp_path), config=config)
        assert asked.pop() == ("emotions", "hub", name, expected)


def test_a_set_without_lists_of_emotions_is_refused(tiny_marian, tmp_path):
    (tmp_path / "hub").mkdir()
    table = pd.DataFrame({"text": ["what a day"], "labels": ["great"]})
    table.to_parquet(tmp_path / "hub" / "train.parquet")
    with pytest.raises(DataError, match=r"\[train\]: expected a list of emotion ids a text"):
        translation.translate_hub(str(tmp_path / "hub"), str(tmp_path), str(tiny_marian))


@pytest.mark.parametrize(
    "line",
    ["", "-o out.csv", "--file a.csv", "--hub x", "--file a.csv --hub x -o out.csv"],
)
def test_a_table_or_a_set_of_the_hub_is_named_not_both(line, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["translate", *line.split()])
    assert stopped.value.code == 2
    assert "--file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "unread"),
    [("--file a.csv --config raw", "--config"), ("--hub x --column body", "--column")],
)
def test_an_option_that_would_not_be_read_is_refused(line, unread, capsys):
    assert main(["translate", *line.split(), "-o", "out.csv"]) == 1
    assert f"{unread} is not read with --" in capsys.readouterr().err
