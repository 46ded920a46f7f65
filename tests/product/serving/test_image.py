"""The images: the service's small, closed and pinned, with its steps run without Docker; that for
training as the Makefile installs it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.course.test_environment import PYPROJECT, locked
from tests.product.serving.known import TEXTS, cues, http_post
from viralbert import cli
from viralbert.serving.gate import LINGER_S
from viralbert.serving.limits import ServiceLimits
from viralbert.serving.predictor import ViralBERT
from viralbert_utils.base.files import ROOT


def instructions(stage: str | None = "serve") -> list[tuple[str, str]]:
    """Of a stage of the Dockerfile, or of all: `[("FROM", "python:..."), ...]`."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).split("\n")
    found = [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]
    if stage is None:
        return found
    starts = [k for k, (name, _) in enumerate(found) if name == "FROM"] + [len(found)]
    (own,) = (k for k, start in enumerate(starts[:-1]) if found[start][1].endswith(f" AS {stage}"))
    return found[starts[own] : starts[own + 1]]


def test_the_image_is_small_closed_and_pinned():
    found = instructions()
    names = [name for name, _ in found]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+ AS serve", found[0][1])
    assert instructions(None)[-len(found) :] == found, "what is built unless another is asked for"
    (user,) = (rest for name, rest in found if name == "USER")
    assert re.fullmatch(r"[1-9]\d{3,}", user), (
        "a number, so that an orchestrator can see that it isn't root"
    )
    assert "RUN" not in names[names.index("USER") :]
    health = next(rest for name, rest in found if name == "HEALTHCHECK")
    assert "/readyz" in json.loads(health.partition("CMD ")[2])[2]
    command = json.loads(found[-1][1])
    assert found[-1][0] == "CMD"
    options = cli._parser().parse_args(command[1:])
    assert (command[0], options.models, options.host, options.port) == (
        "viralbert",
        ["/model"],
        "0.0.0.0",
        8000,
    )
    assert ("EXPOSE", "8000") in found
    assert any("ORT_DISABLE_TELEMETRY=1" in rest.split() for name, rest in found if name == "ENV")
    assert not {"ADD", "VOLUME"} & set(names)
    install = "pip install --no-cache-dir --require-hashes --requirement requirements-image.lock"
    assert ("RUN", install) in found
    pinned = locked("requirements-image.lock").keys()
    assert not pinned & {"torch", "transformers", "pandas", "jupyterlab", "matplotlib", "ipython"}
    assert set(PYPROJECT["dependency-groups"]["image"]) <= pinned


def test_the_image_for_training_is_installed_as_the_makefile_does():
    (argument, base), *_ = instructions(None)
    found = instructions("train")
    assert (argument, found[0]) == ("ARG", ("FROM", "${TRAIN_BASE} AS train"))
    default, (serving, _, _) = base.partition("=")[2], instructions("serve")[0][1].split()
    assert default == serving, "one Python for both, unless a base with CUDA is named"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    torch = re.search(r"^TORCH +\?= (\S+)$", makefile, re.M)[1]
    assert ("ARG", f"TORCH={torch}") in found
    steps = [rest for name, rest in found if name == "RUN"]
    assert "--require-hashes --requirement requirements.lock" in steps[0]
    assert "--no-deps" in steps[0]
    assert 'pip install ${PIP_ARGS} "${TORCH}"' in steps[1]
    assert "--no-deps --editable ." in steps[2]
    copied = [source for name, rest in found if name == "COPY" for source in rest.split()[:-1]]
    assert {"viralbert", "viralbert_utils", "data", "notebooks", "profiles"} <= set(copied)
    names = [name for name, _ in found]
    (user,) = (rest for name, rest in found if name == "USER")
    assert re.fullmatch(r"[1-9]\d{3,}", user)
    assert "RUN" not in names[names.index("USER") :]
    assert cli._parser().parse_args(json.loads(found[-1][1])[1:]).command == "check-env"


@pytest.mark.parametrize(
    ("version", "status"), [("2.13.0", 0), ("2.13.0+cu130", 0), ("2.12.1", 7), (None, 7)]
)
def test_a_torch_of_the_base_is_kept_only_if_it_is_the_one(tmp_path, version, status):
    """The step itself, in a shell, with a torch of our own and a pip that only fails."""
    step = [rest for name, rest in instructions("train") if name == "RUN"][1]
    assert step.count("python -m pip install") == 1
    step = step.replace('python -m pip install ${PIP_ARGS} "${TORCH}"', "exit 7")
    step = step.replace("python", "$PYTHON")
    if version:
        (tmp_path / "torch.py").write_text(f"__version__ = {version!r}\n")
    else:
        (tmp_path / "torch.py").write_text("raise ImportError\n")
    environment = {"TORCH": "torch==2.13.0", "PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(["sh", "-c", step], env=environment, check=False, capture_output=True)
    assert done.returncode == status


def test_the_images_copy_what_is_there_and_not_ignored():
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    sources = [
        source
        for name, rest in instructions(None)
        if name == "COPY"
        for source in rest.split()[:-1]
    ]
    assert set(sources) == kept
    assert all((ROOT / source).exists() for source in sources)


def test_compose_serves_this_machine_alone_and_waits_for_a_stop():
    (found,) = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))[
        "services"
    ].values()
    assert found["ports"] == ["127.0.0.1:8000:8000"]
    options = cli._parser().parse_args(found["command"][1:])
    assert (options.models, options.host, options.allow_no_key) == (["/model"], "0.0.0.0", True)
    assert found["volumes"][0].endswith(":/model:ro")
    assert found["read_only"] is True
    assert int(found["stop_grace_period"][:-1]) > ServiceLimits().timeout_s + LINGER_S


@pytest.mark.skipif(
    "VIRALBERT_IMAGE" not in os.environ, reason="minutes and a network: VIRALBERT_IMAGE=1 runs it"
)
def test_the_steps_of_the_image_in_a_clean_environment(exported, tmp_path):
    """What the Dockerfile does, without Docker: its files alone, its packages alone, its command,
    its health check."""
    app, bin_ = tmp_path / "app", tmp_path / "venv" / "bin"
    app.mkdir()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    ignored = shutil.ignore_patterns("__pycache__", "pretrained")
    environment = {"PATH": f"{bin_}:/usr/bin:/bin", "HOME": str(tmp_path)}
    for name, rest in instructions():
        if name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, app / target, ignore=ignored)
                else:
                    shutil.copy(ROOT / source, app)
        elif name == "RUN":
            subprocess.run(
                rest.partition(" && useradd")[0], shell=True, check=True, cwd=app, env=environment
            )
    shutil.rmtree(app / "viralbert_utils")
    command = [
        *json.loads(instructions()[-1][1]),
        "--port",
        "0",
        "--host",
        "127.0.0.1",
        "--model",
        str(exported),
    ]
    with subprocess.Popen(
        command, cwd=app, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().split()[-1]
        found = http_post(f"{url}/v1/predict", json={"text": TEXTS[0]}).json()
        moments = http_post(f"{url}/v1/moments", json={"cues": cues()})
        status = Path(f"/proc/{process.pid}/status").read_text()
        health = next(rest for name, rest in instructions() if name == "HEALTHCHECK").partition(
            "CMD "
        )[2]
        check = [part.replace("http://127.0.0.1:8000", url) for part in json.loads(health)]
        healthy = subprocess.run(check, env=environment, check=False).returncode
        process.send_signal(signal.SIGTERM)
    assert found["predictions"][0]["viral_score"] == pytest.approx(
        ViralBERT.load(exported).predict(TEXTS[0]).viral_score
    )
    assert moments.status_code == 200
    assert (healthy, process.returncode) == (0, 0)
    size = sum(path.stat().st_size for path in (tmp_path / "venv").rglob("*") if path.is_file())
    print(f"{size / 1e6:.0f} MB installed, {re.search(r'VmHWM:.*', status)[0]}")
