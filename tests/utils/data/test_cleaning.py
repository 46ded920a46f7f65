import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.timing import grows
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.texts import comparison_key, normalise
from viralbert_utils.data import cleaning
from viralbert_utils.data.cleaning import clean, jaccard, near_duplicates, shingles
from viralbert_utils.data.emotions import EMOTIONS
from viralbert_utils.data.sources import Dataset


def dataset(**splits: list[tuple[object, object]]) -> Dataset:
    tables = {
        name: pd.DataFrame(rows, columns=["text", "labels"], dtype=object)
        for name, rows in splits.items()
    }
    return Dataset("test", "here", tables)


def reasons(result: cleaning.Cleaned) -> dict[tuple[str, int], str]:
    return {(row.split, row.row): row.reason for row in result.dropped.itertuples()}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  два\u00a0 слова\n", "два слова"),
        ("невиди\u200bмый\u00ad", "невидимый"),
        ("&quot;да&quot; &amp; нет", '"да" & нет'),
        ("й", "й"),  # decomposed to composed
        ("спасибо, [ИМЯ]!", "спасибо, [NAME]!"),
        ("видел [ФАМИЛИЮ] и [ имени ]", "видел [NAME] и [NAME]"),
        ("это [религией] не назвать", "это [RELIGION] не назвать"),
        ("[ничего] и [смеется]", "[ничего] и [смеется]"),
        ("семья 👨\u200d👩\u200d👧 тут", "семья 👨\u200d👩\u200d👧 тут"),
        ("сло\u200dво", "слово"),
        ("Ё, №5…", "Ё, №5…"),
        # Stress marks go; letters that are made of the same or other marks stay.
        ("за\u0301мок и замо\u0300к, О\u0341зеро, ѐ ѝ", "замок и замок, Озеро, е и"),
        ("е\u0308\u0301лка, е\u0301\u0308лка, и\u0306од, Моё", "ёлка, ёлка, йод, Моё"),
        (
            "ї\u0301, є\u0301, к\u0301, ѓ, ў, ӣ, о\u0304, рýку, áдрес",
            "ї, є, ќ, ѓ, ў, ӣ, о\u0304, руку, адрес",
        ),
        ("café, cafe\u0301, naïve, Việt, é", "café, café, naïve, Việt, é"),
        ("क\u0940 और क\u0947", "क\u0940 और क\u0947"),
        # An entity ends with its semicolon.
        (
            "a.ru/?b=1&copy=2&region=77&times=3&sect;&para",
            "a.ru/?b=1&copy=2&region=77&times=3§&para",
        ),
        ("?a=1&region;&notit; &copycat; &amp;copy;", "?a=1&region;&notit; &copycat; &copy;"),
        ("AT&T, R&D, &#171;да&#187; &#xab;", "AT&T, R&D, «да» «"),
        ("&#" + "9" * 5000 + ";", "&#" + "9" * 5000 + ";"),
        ("&#x" + "f" * 5000, "&#x" + "f" * 5000),
        ("&#0; &#xD800; &#99999999;", "� � �"),
        ("половина \ud83d пары", "половина � пары"),
        # What nobody sees.
        ("за\u034fмок, то\ufe0fт, \u2062же", "замок, тот, же"),
        ("до\u2800после\ufffcвсего\u3164", "до после всего"),
        (
            "❤\ufe0f\u200d🔥 1\ufe0f\u20e3 🏴\U000e0067\U000e0062\U000e007f 👍🏽",
            "❤\ufe0f\u200d🔥 1\ufe0f\u20e3 🏴\U000e0067\U000e0062\U000e007f 👍🏽",
        ),
        ("😂\u200d да\u200d 😂\U000e0067", "😂 да 😂"),
        ("&#55357;&#56832; и &#xD83D;&#xDE00;", "😀 и 😀"),
        # An accent that stands by itself is a stress mark, too; a quotation mark and what belongs
        # to no vowel are none.
        ("соба´ка, пора´ за`мок, А\u02cbнна", "собака, пора замок, Анна"),
        ("`мама` и м´яч, 5´ а´b", "`мама` и м´яч, 5´ а´b"),
        ("\u0301", ""),
        ("да \u0301и нет", "да и нет"),
        # UTF-8 that was read as CP1251 or as Latin-1.
        ("РџСЂРёРІРµС‚, РјРёСЂ", "Привет, мир"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет"),
        ("Р. С. Сергеев, СССР", "Р. С. Сергеев, СССР"),
        # Letters that look the same.
        ("кaк дeла, Mосква и CCCР", "как дела, Москва и СССР"),
        ("Аpple, СOVID-19, Хacker", "Apple, COVID-19, Xacker"),
        ("хoро\u0301шo, СО\u0301сéдкa", "хорошо, СОседка"),
        (
            "Facebookе, VKшник, ёlka, витамин C и с тобой, Кока-Cola",
            "Facebookе, VKшник, ёlka, витамин C и с тобой, Кока-Cola",
        ),
    ],
)
def test_normalise(raw, expected):
    assert normalise(raw) == expected


def test_nothing_is_left_of_what_nobody_sees():
    regex = pytest.importorskip("regex")
    unseen = regex.compile(
        r"[\p{Default_Ignorable_Code_Point}\p{White_Space}\p{Cc}\u2800\ufffc\ufff9-\ufffb]"
    )
    chars = [char for char in map(chr, range(0x110000)) if unseen.match(char)]
    assert len(chars) > 4000
    assert [hex(ord(char)) for char in chars if normalise(char) or normalise(3 * char)] == []
    assert normalise("".join(chars)) == ""


def test_marks_without_end_are_cut_and_a_few_stay():
    assert normalise("о" + "\u0304\u0323" * 50_000 + "да") == normalise(
        "о" + "\u0304\u0323" * 15 + "да"
    )
    assert normalise("о\u0304\u0323да") == unicodedata.normalize("NFC", "о\u0304\u0323да")


@given(
    st.text(
        st.sampled_from(
            "аеиАкaeйxN´` \u0300\u0301\u0306\u0308\u0323\u200d\ufe0f\u034f😂1\u20e3[].;#"
        )
    )
)
def test_normalise_twice_is_normalise_once_for_marks(text):
    assert normalise(normalise(text)) == normalise(text)


@given(st.text())
def test_normalise_twice_is_normalise_once(text):
    # Entities may hide others (&amp;amp;), so a text with "&" is only repaired one level at a time.
    if "&" not in text:
        assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Ну и ёлка!!!", "ну, и елка", True),
        ("да 😂", "Да 😂😂😂", True),
        ("да 😂", "да 😡", False),
        ("Опять дождь.", "Опять дождь?!", False),
        ("", "...", False),
        ("мама мыла раму", "мама мыла рану", False),
        ("Спаси\u0301бо, е\u0308лка!", "спасибо елка", True),
        ("до\u200bм", "дом", True),
        ("мой", "мои", False),
        ("Спаcибо, мaмa", "спасибо мама", True),
    ],
)
def test_comparison_key(a, b, same):
    assert (comparison_key(a) == comparison_key(b)) is same


def test_stress_marks_hide_no_copy_and_invisible_texts_are_dropped():
    rows = [(text, "[27]") for text in ("Поезд в семь", "Дождь весь день", "Ура, едем на море!")]
    marked = [
        ("Сосе\u0301дка испекла\u0301 пиро\u0301г", "[17]"),
        ("\u2800\u2800", "[1]"),
        ("\u3164\u034f", "[1]"),
    ]
    found = clean(dataset(train=[*rows, *marked], test=[("Соседка испекла пирог", "[17]")]))
    assert {row: reason for (_, row), reason in reasons(found).items()} == {
        3: "in_test",
        4: "missing_text",
        5: "missing_text",
    }


def test_each_unusable_row_is_dropped_for_its_reason():
    result = clean(
        dataset(
            train=[
                ("хороший день", "[17]"),
                (None, "[17]"),
                (float("nan"), "[1]"),
                (" \u200b", "[1]"),
                ("ы" * 6000, "[1]"),
                ("only English here", "[1]"),
                ("😂😂😂", "[1]"),
                *[(f"обычный текст номер {i}", "[27]") for i in range(60)],
                ("метка сломана", "[x]"),
                ("метка не та", "[28]"),
            ]
        ),
        names=EMOTIONS,
        near_threshold=2,
    )
    expected = {
        1: "missing_text",
        2: "missing_text",
        3: "missing_text",
        4: "too_long",
        5: "not_russian",
        67: "unknown_label",
        68: "unknown_label",
    }
    assert reasons(result) == {("train", row): reason for row, reason in expected.items()}
    assert 6 in result.splits["train"].index  # emoji alone are a text
    assert "label id 28 outside 0..27" in result.dropped["detail"].tolist()


def test_counts_add_up_and_rows_keep_their_numbers():
    rows = [
        ("один два три четыре", "[1]"),
        ("Один, два, три, четыре!", "[1]"),
        ("", "[1]"),
        ("пять шесть семь", "[2]"),
    ]
    result = clean(dataset(train=rows), names=EMOTIONS)
    counts = result.counts.loc["train"]
    assert counts["read"] == 4
    assert counts["read"] - counts.drop(["read", "left"]).sum() == counts["left"] == 2
    assert list(result.splits["train"].index) == [0, 3]


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        (["[1]", "[1]"], [1]),
        (["[1 2]", "[1]"], [1]),
        (["[1 2]", "[2 1]", "[3]"], [1, 2]),
        (["[1]", "[2]"], None),
        (["[]", "[]"], []),
        (["[]", "[]", "[4]"], []),
        (["[]", "[4]"], None),
    ],
)
def test_equal_texts_keep_the_labels_of_the_majority(labels, kept):
    rows = [("тот же самый текст", label) for label in labels] + [("другой", "[27]")]
    result = clean(dataset(train=rows), names=EMOTIONS)
    left = result.splits["train"].set_index("text")["labels"].to_dict()
    assert left.get("тот же самый текст") == kept


def test_single_labels_are_read_in_any_spelling():
    table = pd.DataFrame({"text": ["а б", "в г", "д е"], "label": ["1", 0, 1.0]}, dtype=object)
    assert list(
        clean(Dataset("v", "here", {"all": table}), classes=[0, 1]).splits["all"]["label"]
    ) == [1, 0, 1]
    table = pd.DataFrame({"text": ["а б", "в г"], "label": ["Good", "bad "]}, dtype=object)
    assert list(
        clean(Dataset("r", "here", {"all": table}), classes=["bad", "good"]).splits["all"]["label"]
    ) == [
        "good",
        "bad",
    ]


def test_texts_of_evaluation_splits_leave_training_only():
    long = "сегодня мы всем двором искали пропавшего кота соседки"
    result = clean(
        dataset(
            train=[
                ("общий текст раз", "[1]"),
                (long + " утром", "[1]"),
                ("только учим", "[1]"),
                ("есть в тесте", "[1]"),
            ],
            validation=[("Общий текст, раз!", "[2]"), (long, "[1]"), ("есть в тесте", "[3]")],
            test=[("есть в тесте", "[3]"), ("есть в тесте", "[3]")],
        ),
        names=EMOTIONS,
        near_threshold=0.7,
    )
    assert list(result.splits["train"].index) == [2]
    assert reasons(result) == {
        ("train", 0): "in_validation",
        ("train", 1): "in_validation",
        ("train", 3): "in_test",
    }
    assert len(result.splits["validation"]) == 3
    assert len(result.splits["test"]) == 2
    assert result.notes == {
        "validation rows that repeat one of test (kept)": 1,
        "test rows that repeat one of test (kept)": 1,
    }


def test_training_that_stands_wholly_in_the_test_is_an_error():
    with pytest.raises(
        DataError, match=r"test/train: no row is left after cleaning; dropped: \{'in_test': 2\}"
    ):
        clean(
            dataset(
                train=[("раз два", "[1]"), ("три", "[1]")],
                test=[("Раз, два", "[1]"), ("три", "[1]")],
            ),
            names=EMOTIONS,
        )


def test_a_chain_of_small_changes_is_thinned_not_emptied():
    words = [f"слово{i}" for i in range(30)]
    chain = [" ".join([f"иначе{j}" for j in range(i)] + words[i:]) for i in range(6)]
    near, next_but_one = (jaccard(shingles(chain[0]), shingles(chain[i])) for i in (1, 2))
    pairs = near_duplicates(chain, (near + next_but_one) / 2)
    # Each second one stays, and stands for the one behind it; no pair refers to a text that is gone
    # itself.
    assert pairs == [(0, 1), (2, 3), (4, 5)]


def test_pairs_just_above_the_threshold_are_found():
    base = [
        f"{i} раз звонила мама и спрашивала про ключи, деньги и собаку номер {i * i}"
        for i in range(300)
    ]
    changed = [text.replace("ключи", "билет") for text in base]
    similar = [jaccard(shingles(a), shingles(b)) for a, b in zip(base, changed, strict=True)]
    threshold = float(np.quantile(similar, 0.02)) - 0.01
    texts = [text for pair in zip(base, changed, strict=True) for text in pair]
    found = {later for _, later in near_duplicates(texts, threshold)}
    assert len(found & set(range(1, 600, 2))) > 0.95 * 300


def test_another_label_set_is_an_error_not_a_drop():
    with pytest.raises(
        DataError, match=r"test/train: 2 of 3 rows have an unusable label \(row 0: label id 40"
    ):
        clean(dataset(train=[("а", "[40]"), ("б", "[1]"), ("в", "[41]")]), names=EMOTIONS)


@pytest.mark.parametrize(
    "labels",
    [[1, 0], ["1.0", "0.0"], ["1,0", "0,0"], [True, False], ["TRUE", " 0\u200b"], ["1.", "0"]],
)
def test_a_class_that_is_a_number_is_known_in_any_spelling(labels):
    table = pd.DataFrame({"text": ["кот ушёл", "пёс пришёл"], "label": labels}, dtype=object)
    assert list(
        clean(Dataset("v", "here", {"all": table}), classes=[0, 1]).splits["all"]["label"]
    ) == [1, 0]


def test_names_that_are_wanted_are_listed():
    with pytest.raises(
        DataError, match=r"expected ids 0\.\.1 or names in English or Russian \(кот, пёс\)"
    ):
        clean(dataset(train=[("а б", "мышь"), ("в г", "слон")]), names=["кот", "пёс"])


def test_nothing_left_is_an_error():
    with pytest.raises(
        DataError, match=r"no row is left after cleaning; dropped: \{'missing_text': 2\}"
    ):
        clean(dataset(train=[("", "[1]"), (" ", "[1]")]), names=EMOTIONS)


def test_index_must_name_each_row_once():
    table = pd.DataFrame({"text": ["а б", "в г"]}, index=[0, 0])
    with pytest.raises(DataError, match="must name each row once"):
        clean(Dataset("t", "here", {"all": table}))


def test_clean_data_pass_unchanged_twice():
    once = clean(
        dataset(
            train=[(f"вполне разный текст {word}", "[1]") for word in ("окно", "поезд", "самовар")]
        ),
        names=EMOTIONS,
    )
    again = clean(Dataset("test", "here", once.splits), names=EMOTIONS)
    pd.testing.assert_frame_equal(once.splits["train"], again.splits["train"])


WORDS = st.sampled_from(
    ["кот", "пришел", "домой", "вечером", "и", "долго", "смотрел", "на", "диван", "у", "окна"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=4, max_size=12).map(" ".join), min_size=2, max_size=25))
def test_near_duplicates_against_all_pairs(texts):
    threshold = 0.8
    pieces = [shingles(text) for text in texts]
    found = near_duplicates(texts, threshold)
    assert all(jaccard(pieces[i], pieces[j]) >= threshold and i < j for i, j in found)
    stay = [j for j in range(len(texts)) if j not in {later for _, later in found}]
    # Hashing may miss a pair just at the threshold, hardly ever one clearly above it.
    assert all(
        jaccard(pieces[i], pieces[j]) < threshold + 0.12 for i in stay for j in stay if i < j
    )


def test_near_duplicate_search_grows_linearly():
    rng = np.random.default_rng(0)
    letters = list("абвгдежзийклмнопрстуфхцчшщыэюя")
    words = ["".join(rng.choice(letters, 6)) for _ in range(3000)]

    def make(n: int) -> list[str]:
        return [" ".join(rng.choice(words, 10)) for _ in range(n)]

    assert not grows(lambda texts: near_duplicates(texts, 0.8), make, 2000)
