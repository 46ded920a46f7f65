"""`viralbert download` against a server on this machine that answers as the hub does."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.utils.base.test_hub import COUNTING
from viralbert.course import download
from viralbert.course.runner import Run
from viralbert_utils.base.files import ROOT
from viralbert_utils.data import sources
from viralbert_utils.data.contracts import CONTRACTS

ENCODER = "somebody/tiny"
CONFIGS = """---
configs:
- config_name: {name}
  data_files:
  - split: train
    path: train.parquet
---
"""


class Hub(BaseHTTPRequestHandler):
    """What the hub's libraries ask for: a repository's files with their sizes, and each file, also
    from a byte on."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, body=b"", **headers):
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        api = re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)(/tree/[^/]+/?(.*)|/revision/.*)?", path
        )
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.*)", path)
        if api and (base := self.server.root / api[1] / api[2]).is_dir():
            names = sorted(p.name for p in base.iterdir())
            if api[4]:
                self.answer(404, b"{}", X_Error_Code="EntryNotFound")
            elif (api[3] or "").startswith("/tree"):
                listing = [
                    {"type": "file", "oid": n, "size": (base / n).stat().st_size, "path": n}
                    for n in names
                ]
                self.answer(200, json.dumps(listing).encode(), Content_Type="application/json")
            else:
                about = {
                    "id": api[2],
                    "sha": "0" * 40,
                    "private": False,
                    "gated": False,
                    "disabled": False,
                    "tags": [],
                }
                about["siblings"] = [{"rfilename": name} for name in names]
                self.answer(200, json.dumps(about).encode(), Content_Type="application/json")
        elif (
            file
            and (
                self.server.root / ("datasets" if file[1] else "models") / file[2] / file[3]
            ).is_file()
        ):
            self.send_file(
                self.server.root / ("datasets" if file[1] else "models") / file[2] / file[3]
            )
        else:
            self.answer(404, b"{}", X_Error_Code="EntryNotFound" if file else "RepoNotFound")

    def send_file(self, target):
        raw = target.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha1(raw).hexdigest()}"',
            "X-Repo-Commit": "0" * 40,
            "Accept-Ranges": "bytes",
        }
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        self.server.asked.append((self.command, target.name, start))
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(raw) - 1}/{len(raw)}"
        if self.command == "GET" and target.name in self.server.cut:
            # The line breaks in the middle of the file, once.
            self.server.cut.remove(target.name)
            self.send_response(200)
            for name, value in {"Content-Length": len(raw), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(raw[: len(raw) // 2])
            self.close_connection = True
            return
        self.answer(206 if start else 200, raw[start:], **headers)


@pytest.fixture
def hub(tmp_path, save_tiny_encoder):
    """A server with an encoder and the three public data sets, made of sample rows in the hub's
    format."""
    root = tmp_path / "hub"
    folder = root / "models" / ENCODER
    # 25 MB: the hub's library keeps what has come in pieces of 10 MB.
    save_tiny_encoder(folder, vocab_size=200_000)
    for name in ("emotions", "cedr", "reviews"):
        source = sources.load("emotions" if name == "cedr" else name).splits["all"].head(20)
        contract = CONTRACTS[name]
        target = root / "datasets" / str(contract.hub)
        target.mkdir(parents=True)
        names = {column: aliases[0] for column, aliases in contract.columns.items()}
        source.rename(columns=names).to_parquet(target / "train.parquet", index=False)
        (target / "README.md").write_text(
            CONFIGS.format(name=contract.hub_config or "default"), encoding="utf-8"
        )
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.root, server.cut, server.asked = root, [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def call(arguments, tmp_path, hub=None, **environment):
    """A process of its own: the hub's library reads its settings once, when it is imported."""
    known = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    known["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_port}" if hub else "http://127.0.0.1:9"
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=ROOT,
        env=os.environ | known | environment,
        capture_output=True,
        text=True,
    )


def test_what_is_downloaded_is_complete_and_needs_no_network(hub, tmp_path):
    hub.cut = ["model.safetensors"]
    command = ["-m", "viralbert.cli", "download", "--profile", "full", "--encoder", ENCODER, "--to"]
    result = call([*command, str(tmp_path / "kept")], tmp_path, hub)
    assert result.returncode == 0, result.stderr
    assert f"encoders {ENCODER}; data sets emotions, cedr, reviews" in result.stdout
    starts = [
        start for method, name, start in hub.asked if (method, name) == ("GET", "model.safetensors")
    ]
    assert starts[0] == 0
    assert starts[-1] > 0, "what had come before the line broke is not fetched again"
    hub.shutdown()
    source = str(tmp_path / "kept" / "data")
    code = f"""
from viralbert_utils.data import sources
from viralbert_utils.encoders import loading
print({{name: sources.load(name, {source!r}).n_rows for name in ("emotions", "cedr", "reviews")}})
print(type(loading.load_encoder({ENCODER!r})[1]).__name__)
"""
    # The folder alone, as on another machine.
    elsewhere = {
        "HF_HOME": str(tmp_path / "other"),
        "HF_HUB_CACHE": str(tmp_path / "kept/hub"),
        "HF_HUB_OFFLINE": "1",
    }
    result = call(["-c", code], tmp_path, **elsewhere)
    assert result.stdout.split("\n")[:2] == [
        "{'emotions': 20, 'cedr': 20, 'reviews': 20}",
        "BertModel",
    ], result.stderr


def test_what_was_loaded_once_is_there_when_the_hub_is_gone(hub, tmp_path):
    command = ["-m", "viralbert.cli", "download", "--profile", "full", "--encoder", ENCODER]
    assert call(command, tmp_path, hub).returncode == 0
    code = f"""{COUNTING}
import datasets, transformers
from viralbert_utils.base import hub
from viralbert_utils.data import sources
from viralbert_utils.encoders import loading
hub.REMEMBERED_S = 3600
print({{name: sources.load(name, "hub").n_rows for name in ("emotions", "cedr", "reviews")}})
print(type(loading.load_encoder({ENCODER!r})[1]).__name__)
print(len(tried))
"""
    hub.shutdown()  # the port takes connections, and nobody answers
    for _ in range(2):
        result = call(["-c", code], tmp_path, hub)
        rows, model, n_tried = result.stdout.split("\n")[:3]
        assert (rows, model) == ("{'emotions': 20, 'cedr': 20, 'reviews': 20}", "BertModel"), (
            result.stderr
        )
        assert n_tried == "1"
        for name in (ENCODER, *(CONTRACTS[name].hub for name in ("emotions", "cedr", "reviews"))):
            assert f"{name} is the copy in its cache" in result.stderr
        hub.server_close()  # the port refuses


def test_without_the_hub_the_error_says_what_to_do(tmp_path):
    result = call(
        ["-m", "viralbert.cli", "download", "--profile", "full", "--encoder", ENCODER], tmp_path
    )
    assert result.returncode == 1
    assert f"encoder {ENCODER!r} could not be loaded" in result.stderr
    assert "use encoder='embedded' or download it" in result.stderr


def test_profiles_say_what_they_take_from_the_hub():
    assert download.wanted(Run("sample")) == ([], [])
    assert download.wanted(Run("smoke")) == ([], [])
    encoders, sets = download.wanted(Run("full"))
    assert {"ai-forever/ruBert-base", "cointegrated/rubert-tiny2"} <= set(encoders)
    assert set(sets) == {"emotions", "cedr", "reviews"}
    assert download.wanted(Run("full", data="sample", encoder="embedded")) == ([], [])
