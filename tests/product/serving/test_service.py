"""The service: answers, and what it says of itself."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.product.serving.known import TEXTS, cues, http_get, http_post
from tests.timing import HANG_S
from viralbert.moments.ranking import find_moments
from viralbert.moments.subtitles import Cue, write_subtitles
from viralbert.serving import bodies, service
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.emotions import EMOTIONS, RUSSIAN_NAMES


def test_one_text_and_many(ask, known):
    (one,) = ask.post("/v1/predict", json={"text": TEXTS[0]}).json()["predictions"]
    many = ask.post("/v1/predict", json={"text": TEXTS}).json()["predictions"]
    assert many[0] == one
    assert len(many) == 3
    assert one == json.loads(json.dumps(known.one(TEXTS[0]).as_dict())) | {
        "emotion": {"name": "joy", "russian": "радость", "probability": 0.8},
        "class": "joy",
        "probability": 0.8,
    }
    assert many[1]["emotion"]["name"] == "joy", "the most probable, even below its threshold"
    assert many[1]["emotions"] == []
    assert many[2]["emotion"] is None
    assert (many[2]["class"], many[2]["probability"]) == (None, 0.0)


def test_moments_are_those_of_the_command_line(ask, known, tmp_path):
    expected = find_moments([Cue(c["start"], c["end"], c["text"]) for c in cues()], known.scores)
    assert expected.moments
    found = ask.post("/v1/moments", json={"cues": cues()}).json()
    assert [(m["start"], m["end"], m["score"]) for m in found["moments"]] == [
        (m.start, m.end, m.score) for m in expected.moments
    ]
    assert found["note"] == expected.note
    assert (
        found["moments"][0]["emotions"][0]["russian"]
        == RUSSIAN_NAMES[expected.moments[0].emotions[0].name]
    )
    assert (found["start_s"], found["duration_s"]) == (0.0, 159.8)
    assert [
        m["rank"] for m in ask.post("/v1/moments?n=1", json={"cues": cues()}).json()["moments"]
    ] == [1]
    for suffix, encoding in (
        ("srt", "utf-8"),
        ("srt", "cp1251"),
        ("vtt", "utf-8"),
        ("ass", "utf-8"),
    ):
        write_subtitles(
            [Cue(c["start"], c["end"], c["text"]) for c in cues()], tmp_path / f"a.{suffix}"
        )
        content = (tmp_path / f"a.{suffix}").read_text(encoding="utf-8").encode(encoding)
        sent = ask.post("/v1/moments", files={"file": ("a.srt", content)}).json()
        assert sent["moments"] == found["moments"]
        assert bool(sent["repairs"]) == (encoding == "cp1251")


def test_the_length_of_subtitles_is_counted_from_where_they_begin(ask):
    late = [cue | {"start": cue["start"] + 3600.5, "end": cue["end"] + 3600.5} for cue in cues()]
    found = ask.post("/v1/moments", json={"cues": late}).json()
    assert (found["start_s"], found["duration_s"]) == (3600.5, 159.8)
    assert found["moments"][0]["start"] > 3600, "all times are the subtitles' own"


def test_cues_without_speech_give_a_reason(ask):
    found = ask.post("/v1/moments", json={"cues": [{"text": "[музыка]", "start": 0}]})
    assert found.status_code == 200
    assert found.json()["note"].startswith("no moments: none of 1 cues holds speech")


def test_a_file_that_names_a_path_is_not_read(ask, tmp_path):
    (tmp_path / "secret.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nтайна\n", encoding="utf-8"
    )
    for content in (str(tmp_path / "secret.srt"), "/etc/passwd"):
        found = ask.post("/v1/moments", files={"file": ("a.srt", content.encode())})
        assert found.status_code == 422
        assert found.json()["detail"].startswith("the subtitle file: no cue found; it begins")


def test_classes_health_metrics(ask):
    classes = ask.get("/v1/emotions").json()
    assert [c["name"] for c in classes] == list(EMOTIONS)
    assert classes[0] == {"name": "admiration", "russian": "восхищение", "threshold": 0.3}
    assert classes[-1]["threshold"] is None, "a threshold that nothing reaches"
    assert ask.get("/healthz").status_code == ask.get("/readyz").status_code == 200
    ask.post("/v1/predict", json={"text": TEXTS})
    ask.get("/v1/nothing")
    text = ask.get("/metrics").text
    assert 'viralbert_requests_total{route="/v1/predict",status="200"} 1.0' in text
    assert 'viralbert_batch_texts_bucket{le="4.0"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert "nothing" not in text, "a label that a stranger invented"


def test_health_is_answered_while_something_slow_is_parsed_or_computed(known, serve, monkeypatch):
    url, _ = serve()
    busy, answered = threading.Event(), threading.Event()

    def slow(*_):  # holds the interpreter as any Python code does
        busy.set()
        end = time.monotonic() + 2 * HANG_S
        while not answered.is_set() and time.monotonic() < end:
            sum(range(1000))
        raise DataError("too slow")

    monkeypatch.setattr(service, "read_subtitles", slow)
    monkeypatch.setattr(
        bodies,
        "_parsed",
        lambda body, own=bodies._parsed: slow() if b"slow" in body else own(body),
    )
    form = {"file": ("a.srt", b"a")}
    for path, body in (
        ("/v1/moments", {"files": form}),
        ("/v1/predict", {"json": {"text": "slow"}}),
    ):
        busy.clear()
        answered.clear()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(http_post, f"{url}{path}", **body)
            try:
                assert busy.wait(HANG_S)
                assert [http_get(f"{url}/healthz").status_code for _ in range(5)] == [200] * 5
                assert not future.done()
            finally:
                answered.set()
            assert future.result().status_code == 422
