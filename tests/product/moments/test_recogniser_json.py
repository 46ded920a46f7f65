"""What recognisers write as JSON, read by its structure."""

import json

import pytest

from tests.product.moments.three_cues import CUES, JSON3, LIST, WHISPER, reports, texts
from viralbert.moments.subtitles import Cue, read_subtitles
from viralbert_utils.base.errors import DataError


@pytest.mark.parametrize(
    ("content", "kind"), [(LIST, "json"), (WHISPER, "whisper"), (JSON3, "json3")]
)
def test_truncated_json_keeps_every_whole_entry(content, kind):
    text = json.dumps(content, ensure_ascii=False)
    result = read_subtitles(text[: text.rindex("Ёжик") + 3])
    assert [c.text for c in result.cues] == [c.text for c in CUES[:2]]
    assert result.format == kind
    assert reports(result, "damaged JSON, whole entries kept")
    middle = text.replace("потребовал", 'потре"бовал')
    assert texts(middle) == [CUES[0].text, CUES[2].text]


SAID = [(cue.text, cue.start, cue.end) for cue in CUES]
WORDS = [
    {
        "word": word,
        "start": round(a + (b - a) * n / len(text.split()), 3),
        "end": round(a + (b - a) * (n + 1) / len(text.split()), 3),
    }
    for text, a, b in SAID
    for n, word in enumerate(text.replace("«", "").replace("— ", "").replace("»", "").split())
]


def clock(seconds: float) -> str:
    return f"00:00:{seconds:06.3f}".replace(".", ",")


def ms(seconds: float) -> int:
    return round(seconds * 1000)


RECOGNISERS = {
    "whisper.cpp": {
        "model": {"type": "base", "text": {"ctx": 448}},
        "transcription": [
            {
                "timestamps": {"from": clock(a), "to": clock(b)},
                "offsets": {"from": ms(a), "to": ms(b)},
                "text": f" {text}",
                "tokens": [{"text": " К", "timestamps": {"from": clock(a), "to": clock(b)}}],
            }
            for text, a, b in SAID
        ],
    },
    "whisper.cpp, offsets": {
        "transcription": [
            {"offsets": {"from": ms(a), "to": ms(b)}, "text": text} for text, a, b in SAID
        ]
    },
    "pipeline": {
        "text": "…",
        "chunks": [{"timestamp": [a, b], "text": f" {text}"} for text, a, b in SAID],
    },
    "pipeline, two files": [
        {"text": "…", "chunks": [{"timestamp": [a, b], "text": text} for text, a, b in SAID]}
    ],
    "pipeline, speakers": {
        "speakers": [{"speaker": "A", "timestamp": [a, b], "text": text} for text, a, b in SAID],
        "chunks": [{"timestamp": [a, b], "text": text} for text, a, b in SAID],
    },
    "faster-whisper": [
        {"id": n, "seek": 0, "start": a, "end": b, "text": f" {text}", "words": WORDS[:2]}
        for n, (text, a, b) in enumerate(SAID)
    ],
    "faster-whisper, rows": [
        [n, 0, a, b, f" {text}", [50364, 7], 0.0, -0.2, 1.3, 0.01, [[a, b, " Кот", 0.9]]]
        for n, (text, a, b) in enumerate(SAID)
    ],
    "rows": [[a, b, text] for text, a, b in SAID],
    "rows, text first": {"segments": [[text, a, b] for text, a, b in SAID], "info": ["ru", 0.98]},
    "rows, pairs of clocks": [[[clock(a), clock(b)], text] for text, a, b in SAID],
    "WhisperX": {
        "segments": [
            {"start": a, "end": b, "text": text, "words": WORDS[:2]} for text, a, b in SAID
        ],
        "word_segments": WORDS,
    },
    "verbose_json": {
        "task": "transcribe",
        "duration": 7.0,
        "text": "…",
        "words": WORDS,
        "segments": [{"start": a, "end": b, "text": text} for text, a, b in SAID],
    },
    "GigaAM": [{"transcription": text, "boundaries": [a, b]} for text, a, b in SAID],
    "alternatives": {
        "results": [
            {
                "alternatives": [
                    {
                        "transcript": text,
                        "words": [{"word": "Кот", "startTime": f"{a}s", "endTime": f"{b}s"}],
                    },
                    {"transcript": "что-то совсем другое"},
                ],
                "startTime": f"{a}s",
                "endTime": f"{b}s",
            }
            for text, a, b in SAID
        ]
    },
    "milliseconds": {
        "utterances": [{"text": text, "start": ms(a), "end": ms(b)} for text, a, b in SAID]
    },
    "named milliseconds": [{"startMs": ms(a), "endMs": ms(b), "text": text} for text, a, b in SAID],
    "columns": {
        "start": {"0": 1.0, "1": 3.0, "2": 5.25},
        "end": {"0": 2.5, "1": 4.0, "2": 7.0},
        "text": {str(n): text for n, (text, _, _) in enumerate(SAID)},
    },
    "inside an answer": {"status": "ok", "output": {"0": {"segments": LIST}}},
    "capital names": {"Segments": [{"Start": a, "End": b, "Text": text} for text, a, b in SAID]},
    "_millis": [{"start_millis": ms(a), "end_millis": ms(b), "text": text} for text, a, b in SAID],
    "both clocks in one": [
        {"time": f"{clock(a)} - {clock(b)}", "text": text} for text, a, b in SAID
    ],
    "parts of seconds": {
        "results": [
            {
                "transcript": text,
                "start_time": {"seconds": str(int(a)), "nanos": round(a % 1 * 1e9)},
                "end_time": {"seconds": int(b), "nanos": round(b % 1 * 1e9)},
            }
            for text, a, b in SAID
        ]
    },
    "ISO 8601": {
        "recognizedPhrases": [
            {
                "offset": f"PT{a}S",
                "duration": f"PT0M{b - a}S",
                "nBest": [{"display": text}, {"display": "другое"}],
            }
            for text, a, b in SAID
        ]
    },
    "with punctuation, too": [
        {
            "results": [
                {"text": text.lower(), "normalized_text": text, "start": f"{a}s", "end": f"{b}s"}
            ]
        }
        for text, a, b in SAID
    ],
    "as it is spoken": [
        {
            "result": {
                "sessionUuid": {"uuid": "1"},
                "audioCursors": {"receivedDataMs": "9"},
                kind: part,
            }
        }
        for text, a, b in SAID
        for reading in [{"startTimeMs": str(ms(a)), "endTimeMs": str(ms(b)), "words": WORDS[:1]}]
        for kind, part in [
            ("partial", {"alternatives": [reading | {"text": text[:9]}]}),
            ("partial", {"alternatives": [reading | {"text": text}]}),
            ("final", {"alternatives": [reading | {"text": text.strip("?!")}]}),
            ("finalRefinement", {"normalizedText": {"alternatives": [reading | {"text": text}]}}),
        ]
    ],
    "not final": {
        "results": [
            {"isFinal": final, "transcript": text[: None if final else 9], "start": a, "end": b}
            for text, a, b in SAID
            for final in (False, True)
        ]
    },
}


@pytest.mark.parametrize("name", RECOGNISERS)
def test_what_recognisers_write_is_read_by_its_structure(name):
    result = read_subtitles(
        json.dumps(RECOGNISERS[name], ensure_ascii=False), strict=name != "milliseconds"
    )
    assert result.cues == CUES
    assert result.format == ("json" if isinstance(RECOGNISERS[name], list) else "whisper")
    assert reports(result, *["times taken for milliseconds"] * (name == "milliseconds"))


@pytest.mark.parametrize(
    "content",
    [
        {"text": "…", "segments": None, "words": WORDS},
        {"segments": [], "word_segments": WORDS},
        WORDS,
        {"result": WORDS, "text": "…"},
        {
            "segments": [
                {"text": text, "words": [w for w in WORDS if a <= w["start"] < b]}
                for text, a, b in SAID
            ]
        },
        {"chunks": [{"text": f" {w['word']}", "timestamp": [w["start"], w["end"]]} for w in WORDS]},
        {
            "words": [
                part
                for w in WORDS
                for part in (
                    {"text": w["word"], "start": w["start"], "end": w["end"]},
                    {"text": " ", "start": w["end"], "end": w["end"]},
                )
            ]
        },
        {
            "words": [
                {"text": w["word"], "start": ms(w["start"]), "end": ms(w["end"])} for w in WORDS
            ]
        },
        {
            "words": [
                {"text": w["word"], "start": w["start"], "duration": w["end"] - w["start"]}
                for w in WORDS
            ]
        },
    ],
)
def test_words_alone_become_lines(content):
    result = read_subtitles(json.dumps(content, ensure_ascii=False), strict=True)
    assert [(c.start, c.end) for c in result.cues] == [(c.start, c.end) for c in CUES[:2]] + [
        (5.25, WORDS[-1]["end"])
    ]
    assert [c.text for c in result.cues] == [*(c.text for c in CUES[:2]), "Ёжик против!"]


def test_words_without_times_and_long_talk_without_full_stops():
    words = [
        {"word": "Это", "start": 1.0, "end": 1.5},
        {"word": "2024"},
        {"word": "год", "start": 2.0, "end": None},
    ]
    assert read_subtitles(json.dumps({"words": words})).cues == [Cue(1.0, 1.5, "Это 2024 год")]
    many = [{"word": f"слово{n}", "start": n / 2, "end": n / 2 + 0.4} for n in range(100)]
    cues = read_subtitles(json.dumps({"words": many})).cues
    assert " ".join(c.text for c in cues) == " ".join(word["word"] for word in many)
    assert max(len(c.text) for c in cues) <= 84


def test_an_end_of_null_is_estimated_and_json_lines_are_no_damage():
    chunks = [
        {"timestamp": [4.0, None], "text": "Кот пришёл."},
        {"timestamp": [1.0, 2.0], "text": "Кот ушёл."},
    ]
    result = read_subtitles(json.dumps({"chunks": chunks[::-1]}), strict=True)
    assert result.cues == [Cue(1, 2, "Кот ушёл."), Cue(4, 6.1, "Кот пришёл.")]
    assert read_subtitles("\n".join(json.dumps(entry) for entry in LIST), strict=True).cues == CUES


def test_no_text_is_lost_for_a_start_of_null():
    said = [
        ([None, 2.0], "Раз."),
        ([None, None], "Два."),
        ([5.0, None], "Три."),
        ([None, None], "Четыре."),
    ]
    chunks = [{"timestamp": pair, "text": text} for pair, text in said]
    result = read_subtitles(json.dumps({"chunks": chunks}))
    assert result.cues == [
        Cue(0, 2, "Раз."),
        Cue(2, 3.4, "Два."),
        Cue(5, 6.4, "Три."),
        Cue(6.4, 8.1, "Четыре."),
    ]
    assert reports(result, "missing start, taken from the end before")
    unreadable = {"text": "А.", "start": "нет", "end": 2}
    assert read_subtitles([unreadable, *LIST]).cues == CUES


@pytest.mark.parametrize(
    "name", ["whisper.cpp", "pipeline", "faster-whisper", "faster-whisper, rows", "rows"]
)
def test_truncated_json_of_a_recogniser_keeps_every_whole_entry(name):
    text = json.dumps(RECOGNISERS[name], ensure_ascii=False, indent=1)
    result = read_subtitles(text[: text.rindex("Ёжик") + 3])
    assert [c.text for c in result.cues] == [c.text for c in CUES[:2]]
    assert reports(result, "damaged JSON, whole entries kept")


def test_other_json_is_an_error_that_names_what_is_in_it():
    with pytest.raises(
        DataError, match=r"no cue.*JSON without pieces of text that have times: 1 \(keys шутки, n"
    ):
        read_subtitles('{"шутки": ["Кот", "Пёс"], "n": 2}')
