"""Loading from the hub where there is no network, and without bars. Nothing here leaves this
machine."""

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from transformers.utils import logging as transformers_logging

from tests import tiny
from tests.timing import HANG_S
from viralbert import translation
from viralbert_utils.base import hub
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT
from viralbert_utils.data import sources
from viralbert_utils.encoders import embedded, loading
from viralbert_utils.encoders.recipe import Recipe
from viralbert_utils.models.classifiers import PooledClassifier
from viralbert_utils.models.storage import save_classifier

ENCODER = "somebody/tiny"
# Lists the connections that a process tries to open. Left to itself, the hub's library tries six
# times for each file.
COUNTING = """
import sys
tried = []
sys.addaudithook(lambda event, given: event == "socket.connect" and tried.append(given[1]))
"""

# What reaches the hub, each as if it were the first to ask.
LOADERS = f"""{COUNTING}
import json
import datasets
from transformers import AutoModel, AutoTokenizer, MarianMTModel
from viralbert import translation
from viralbert_utils.base import hub
from viralbert_utils.base.errors import DataError
from viralbert_utils.data import sources
from viralbert_utils.encoders import loading

hub.TIMEOUT_S = 1.0
loaders = {{
    "encoder": lambda: loading.load_encoder(sys.argv[1]),
    "tokenizer": lambda: loading.load_tokenizer(sys.argv[1]),
    "data": lambda: sources.load("emotions", "hub"),
    "translation": lambda: translation.load_model(sys.argv[1]),
}}
for name in sys.argv[2:]:
    hub._answers.clear()
    tried.clear()
    found = ""
    try:
        loaders[name]()
    except DataError as error:
        found = str(error)
    print(json.dumps({{"name": name, "n_tried": len(tried), "error": found}}))
"""


@pytest.fixture(params=["closed", "silent"])
def no_hub(request):
    """An address where no hub answers: a port that refuses, and one that takes a connection and
    says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def call(tmp_path, code, *arguments, **environment):
    """A process of its own: the hub's library reads its settings once, when it is imported."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith(("_OFFLINE", "_PROXY"))
    }
    known = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        cwd=ROOT,
        env=kept | known | environment,
        capture_output=True,
        text=True,
        timeout=10 * HANG_S,
    )


def rows(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def put_into_cache(folder, save_tiny_encoder):
    """A tiny encoder as the hub's library keeps it."""
    commit = "0" * 40
    repository = folder / f"models--{ENCODER.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    save_tiny_encoder(snapshot)


def test_without_a_hub_the_error_comes_within_ten_seconds(no_hub, tmp_path):
    """One question, whose answer is not awaited for longer than `TIMEOUT_S`; all else takes no
    time."""
    assert hub.TIMEOUT_S <= 5
    result = call(
        tmp_path,
        LOADERS,
        ENCODER,
        "encoder",
        "tokenizer",
        "data",
        "translation",
        HF_ENDPOINT=no_hub,
    )
    found = {row["name"]: row for row in rows(result)}
    for row in found.values():
        assert row["n_tried"] == 1, row
        assert f"the hub cannot be reached ({no_hub}: " in row["error"]
    assert "use encoder='embedded' or download it" in found["encoder"]["error"]
    assert "use encoder='embedded' or download it" in found["tokenizer"]["error"]
    assert "Without a network use the sample" in found["data"]["error"]
    assert "download it on a machine with network" in found["translation"]["error"]


def test_without_a_hub_its_cache_answers_and_says_so(no_hub, tmp_path, save_tiny_encoder):
    put_into_cache(tmp_path / "cache", save_tiny_encoder)
    environment = {"HF_ENDPOINT": no_hub, "HF_HUB_CACHE": str(tmp_path / "cache")}
    result = call(tmp_path, LOADERS, ENCODER, "encoder", "tokenizer", **environment)
    for row in rows(result):
        assert row["error"] == ""
        assert row["n_tried"] == 1, row
    assert f"the hub cannot be reached ({no_hub}: " in result.stderr
    assert f"{ENCODER} is the copy in its cache, which may be an older one" in result.stderr


def test_a_folder_and_a_mistyped_path_ask_no_hub(tmp_path, monkeypatch, save_tiny_encoder):
    asked = []
    monkeypatch.setattr(hub, "out_of_reach", lambda: asked.append(1) or "no route")
    put_into_cache(tmp_path / "cache", save_tiny_encoder)
    loading.load_encoder(str(next((tmp_path / "cache").glob("*/snapshots/*"))))
    for typo in (str(tmp_path / "typo"), "../typo", "~/ty po"):
        with pytest.raises(DataError, match="could not be loaded: no such folder") as found:
            loading.load_encoder(typo)
        assert "cannot be reached" not in str(found.value)
    assert not asked


class Answers(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()


@pytest.fixture
def server():
    found = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    found.asked, found.status = [], 404
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


ASK = "from viralbert_utils.base import hub\nprint(hub.out_of_reach() or hub.out_of_reach())"


@pytest.mark.parametrize(("status", "said"), [(404, ""), (403, ""), (503, "status 503")])
def test_whatever_answers_is_a_hub_unless_it_says_that_it_is_away(server, tmp_path, status, said):
    server.status = status
    result = call(tmp_path, ASK, HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
    assert result.stdout.strip().endswith(said)
    assert bool(result.stdout.strip()) == bool(said)
    assert server.asked == ["/"], "one request, whose answer is remembered"


def test_proxies_are_honoured_and_offline_asks_nobody(server, tmp_path):
    proxy = {
        "HF_ENDPOINT": "http://hub.invalid",
        "HTTP_PROXY": f"http://127.0.0.1:{server.server_port}",
    }
    assert call(tmp_path, ASK, **proxy).stdout.strip() == ""
    assert server.asked == ["http://hub.invalid/"]
    assert call(tmp_path, ASK, HF_HUB_OFFLINE="1", **proxy).stdout.strip() == ""
    assert len(server.asked) == 1


def test_an_answer_is_remembered_for_a_while_only(monkeypatch):
    now, answers = [1000.0], iter(["refused", ""])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_answers", {})
    monkeypatch.setattr(hub, "_ask", lambda endpoint: next(answers))
    monkeypatch.setattr(hub.time, "monotonic", lambda: now[0])
    assert hub.out_of_reach().endswith("refused")
    assert hub.out_of_reach().endswith("refused")
    now[0] += hub.REMEMBERED_S
    assert hub.out_of_reach() == ""


def test_offline_lasts_as_long_as_the_loading(monkeypatch):
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "out_of_reach", lambda: "no route")
    message = (
        r"cannot be reached \(no route\), and its cache holds no usable copy \(KeyError: 'a'\)"
    )
    with pytest.raises(ConnectionError, match=message), hub.loading(ENCODER):
        assert constants.HF_HUB_OFFLINE
        assert datasets.config.HF_HUB_OFFLINE
        raise KeyError("a")
    assert not constants.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE


# bars


@pytest.fixture
def bars(capfd):
    """Bars and messages of the transformers library as in a fresh process."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.enable_progress_bar()
    transformers_logging.set_verbosity_info()
    yield
    transformers_logging.set_verbosity(verbosity)


def test_building_and_saving_say_nothing(bars, capfd, tmp_path, tiny_tokenizer):
    recipe = Recipe(n_words=500, n_pieces=50, n_layers=1, intermediate=300, pretrained=False)
    model = PooledClassifier(tiny.bert(), 2)
    capfd.readouterr()
    embedded.build(recipe, tmp_path)
    assert capfd.readouterr() == ("", "")
    save_classifier(tmp_path / "model", model, tiny_tokenizer, ["a", "b"])
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.is_progress_bar_enabled()


@pytest.mark.parametrize("name", ["/tmp/nix", "./nix", "~/nix", "../no/nix"])
def test_a_path_that_is_not_there_is_told_as_a_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=rf"{name!r} could not be loaded: no such folder: {name} \(there is only /"
    ):
        loading.load_tokenizer(name)
    with pytest.raises(DataError, match="no such folder"):
        translation.load_model(name)
    with pytest.raises(DataError, match="no such folder"):
        sources.load("emotions", "hub", name)


def test_a_folder_in_one_that_is_there_is_told_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(hub, "out_of_reach", lambda: "no route")
    with pytest.raises(
        DataError, match="'models/rubert' could not be loaded: no such folder in 'models'"
    ):
        loading.load_tokenizer("models/rubert")


def test_nothing_is_counted_or_reported_whenever_the_libraries_were_imported():
    code = """
import sys
if sys.argv[1] == "before": import datasets, huggingface_hub
from viralbert_utils.base import hub
hub.out_of_reach = lambda: ""
with hub.loading("owner/name"):
    import datasets
    from datasets import load
    from huggingface_hub.utils import build_hf_headers
    load.get_session = lambda: sys.exit("counted")
    load.increase_load_count("owner/name")
    print(build_hf_headers()["user-agent"])
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    for when in ("before", "after"):
        done = subprocess.run(
            [sys.executable, "-c", code, when],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        assert "torch/" not in done.stdout
