"""`viralbert paraphrase` with a random model, and with one whose words are told."""

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from viralbert import paraphrasing, rewriting
from viralbert.cli import main
from viralbert_utils.base.errors import DataError
from viralbert_utils.data import tables

WORDS = [
    "кот",
    "сам",
    "открыл",
    "дверь",
    "и",
    "ушёл",
    "гулять",
    "дождь",
    "идёт",
    "весь",
    "день",
    "мы",
    "дома",
]
LONG = "кот сам открыл дверь и ушёл гулять под дождём до самого вечера"


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory) -> str:
    """A folder with a random T5 whose tokenizer knows a dozen words, in the hub's format."""
    folder = tmp_path_factory.mktemp("t5")
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(vocabulary),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


def test_each_text_gets_its_own_paraphrases(tiny_t5, tmp_path):
    loaded = rewriting.load_model(tiny_t5, "paraphrase")
    texts = ["кот ушёл гулять", "", "дождь идёт весь день", "кот ушёл гулять"]
    kept = tmp_path / "kept.jsonl"

    def two_each(file, **options):
        return rewriting.rewrite(
            texts, *loaded, file, max_tokens=8, num_beams=3, num_return_sequences=2, **options
        )

    found = two_each(kept)
    assert len(found[0]) == 2 and found[1] == []
    assert found[0] == found[3] != found[2]
    assert all(text.strip() for own in found for text in own)  # a random model may say nothing
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 2
    assert two_each(tmp_path / "alone.jsonl", batch_size=1) == found


def test_what_says_nothing_new_is_dropped():
    texts = [LONG, "мы весь день дома", "дождь идёт"]
    evaluation = ["в понедельник мы всей семьёй поехали за город смотреть на новый большой мост"]
    rewritten = [
        [LONG.upper(), LONG.replace("самого ", ""), "питомец отворил дверцу, и след простыл"],
        ["питомец отворил дверцу, и след простыл.", "целыми днями сидим у себя"],
        [
            "в понедельник мы всей семьёй поехали за город смотреть на новый мост",
            "льёт как из ведра",
        ],
    ]
    new, dropped = paraphrasing.select(texts, rewritten, evaluation)
    assert new == [
        (0, "питомец отворил дверцу, и след простыл"),
        (1, "целыми днями сидим у себя"),
        (2, "льёт как из ведра"),
    ]
    # Another case is the same text; one word less nearly is; a paraphrase of before counts, too.
    assert dropped["equal"] + dropped["nearly equal"] == 3
    assert dropped["like an evaluation text"] == 1
    assert dropped["equal"] >= 1 and dropped["nearly equal"] >= 1
    # Without the evaluation text nothing is known of it.
    assert len(paraphrasing.select(texts, rewritten)[0]) == 4


@pytest.fixture
def told(monkeypatch):
    """Instead of a model: what it would say of each text."""
    says: dict[str, list[str]] = {}
    monkeypatch.setattr(rewriting, "load_model", lambda name, what: (None, None))
    monkeypatch.setattr(
        rewriting, "rewrite", lambda texts, *loaded, **options: [says.get(t, []) for t in texts]
    )
    return says


def test_rows_keep_their_labels_and_evaluation_texts_are_kept_away_from(told, tmp_path, capsys):
    folder = tmp_path / "emotions"
    folder.mkdir()
    told |= {
        "кот сам открыл дверь": ["дверь отворил кот, сам", "питомец вышел без спроса"],
        "дождь идёт весь день": ["льёт с утра до ночи", "дождь идёт весь день!"],
    }
    pd.DataFrame(
        {"text": [*told, "мы дома"], "labels": ["[13]", "[25]", "[27]"], "id": ["e1", "e2", "e3"]}
    ).to_csv(folder / "train.csv", index=False)
    test = pd.DataFrame({"text": ["Льёт с утра до ночи!", "кот"], "labels": ["[25]", "[1]"]})
    test.to_csv(folder / "test.csv", index=False)
    command = [
        "paraphrase",
        "--file",
        str(folder / "train.csv"),
        "-o",
        str(tmp_path / "new/train.csv"),
    ]
    assert main([*command, "--copies", "2"]) == 0
    written = tables.read_table(tmp_path / "new" / "train.csv")
    assert written["text"].tolist() == [
        *told,
        "мы дома",
        "дверь отворил кот, сам",
        "питомец вышел без спроса",
    ]
    assert written["labels"].tolist() == ["[13]", "[25]", "[27]", "[13]", "[13]"]
    assert written["id"].tolist() == ["e1", "e2", "e3", "e1-p1", "e1-p2"]
    assert written["paraphrase_of"].tolist() == ["", "", "", "0", "0"]
    said = capsys.readouterr()
    assert (
        "2 paraphrases added in " in said.out
        and "left out: 2 empty or too long, 1 equal, 0 nearly equal, 1 like an evaluation text"
        in said.out
    )
    assert "no validation or test table" not in said.err


def test_the_manual_shows_what_a_paraphrase_says(tiny_t5, tmp_path, capsys, monkeypatch, manual):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mydata/emotions").mkdir(parents=True)
    for split, texts in {
        "train": ["кот ушёл гулять", "дождь идёт весь день"],
        "test": [LONG],
    }.items():
        table = pd.DataFrame({"text": texts, "labels": ["[13]"] * len(texts)})
        table.to_csv(f"mydata/emotions/{split}.csv", index=False)
    files = "--file mydata/emotions/train.csv --output augmented/emotions/train.csv"
    assert main(f"paraphrase {files} --model {tiny_t5}".split()) == 0
    manual("own-data.md", capsys.readouterr().out)


def test_a_table_that_is_not_split_is_warned_of(told, tmp_path, caplog):
    told["мы дома"] = ["никуда не идём"]
    table = pd.DataFrame({"ru_text": ["мы дома"], "text": ["we are at home"], "labels": ["[1]"]})
    table.to_csv(tmp_path / "train.csv", index=False)
    n_new, _ = paraphrasing.paraphrase_file(str(tmp_path / "train.csv"), str(tmp_path / "n.csv"))
    assert n_new == 1
    assert "split it before it is paraphrased" in caplog.text
    written = tables.read_table(tmp_path / "n.csv")
    assert written["ru_text"].tolist() == ["мы дома", "никуда не идём"]
    apart = tmp_path / "apart.csv"
    pd.DataFrame({"ru_text": ["никуда не идём"], "labels": ["[1]"]}).to_csv(apart, index=False)
    caplog.clear()
    n_new, dropped = paraphrasing.paraphrase_file(
        str(tmp_path / "train.csv"), str(tmp_path / "m.csv"), against=[str(apart)]
    )
    assert (n_new, dropped["like an evaluation text"]) == (0, 1)
    assert not caplog.messages


def test_the_command_runs_with_a_model_and_again(tiny_t5, tmp_path, capsys):
    source, target = tmp_path / "train.csv", tmp_path / "more.csv"
    texts = ["кот ушёл гулять", "дождь идёт весь день"]
    pd.DataFrame({"text": texts, "label": [1, 0]}).to_csv(source, index=False)
    command = ["paraphrase", "--file", str(source), "-o", str(target), "--model", tiny_t5]
    assert main(command) == 0
    written = tables.read_table(target)
    assert written["text"].tolist()[:2] == texts
    first = target.read_bytes()
    assert main(command) == 0
    assert target.read_bytes() == first
    assert len((tmp_path / "more.csv.paraphrases.jsonl").read_text().splitlines()) == 2
    assert "added in" in capsys.readouterr().out


def test_what_cannot_be_paraphrased_is_named(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    for path in (train, test):
        path.write_text("text,label\nкот,1\n", encoding="utf-8")
    done = tmp_path / "done.csv"
    done.write_text("text,paraphrase_of\nкот,\n", encoding="utf-8")
    cases = [
        ((test, "new.csv"), {}, "evaluation table by its name, and only training rows"),
        ((train, train), {}, "would be written over"),
        ((train, "new.parquet"), {}, "expected the name of a CSV file"),
        ((train, "new.csv"), {"copies": 0}, "at least one copy of each text, found 0"),
        (
            (train, "new.csv"),
            {"column": "title"},
            "found text, label: name the column of",
        ),
        ((done, "new.csv"), {}, "holds paraphrases already"),
        ((train, "new.csv"), {"against": [str(tmp_path / "no.csv")]}, "no such file"),
        ((train, "new.csv"), {"model": str(tmp_path / "no")}, "paraphrase model .* could not be"),
    ]
    for paths, options, message in cases:
        with pytest.raises(DataError, match=message):
            paraphrasing.paraphrase_file(*map(str, paths), **options)
    assert not (tmp_path / "new.csv").exists()
