"""Every lesson and every command on a second device.

No GPU is needed: a pretended device (`pretended/pretend.py`) refuses to meet the CPU's tensors.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from viralbert.course import catalogue, report
from viralbert.course.report import Page
from viralbert.course.runner import Run
from viralbert_utils.base import devices
from viralbert_utils.base.files import ROOT

PRETENDED = Path(__file__).parents[1] / "pretended"


def pretending(*command: str, timeout_s: int = 600) -> str:
    """What a Python program prints on a machine whose GPU is the pretended one."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {devices.DEVICE: "pretend:0", "PYTHONPATH": str(PRETENDED)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_the_pretended_device_refuses_what_a_gpu_refuses():
    found = pretending(
        "-c",
        """if True:
        import torch
        here, there = torch.ones(3), torch.ones(3, device="pretend:0")
        positions, table = torch.tensor([0, 2]), torch.ones(4, 3, device="pretend:0")
        for what, attempt in {
            "sum": lambda: here + there,
            "product": lambda: there @ here,
            "joined": lambda: torch.cat([here, there]),
            "table": lambda: torch.nn.functional.embedding(positions, table),
            "positions of the device": lambda: here[positions.to("pretend:0")],
            "numpy": lambda: there.numpy(),
        }.items():
            try:
                attempt()
                print("let through:", what)
            except (RuntimeError, TypeError):
                pass
        assert there.device.type == "pretend" and there.cpu().device.type == "cpu"
        assert (there + 1)[positions].sum().item() == 4
        assert torch.equal((there * torch.tensor(2.0)).cpu(), here * 2)
        layer = torch.nn.Linear(3, 2).to("pretend:0")
        layer(there).sum().backward()
        assert torch.equal(layer.weight.grad.cpu(), torch.ones(2, 3))
    """,
    )
    assert found == ""


def test_a_model_stays_where_it_is():
    """Whoever shares a part of it, an encoder or word vectors, finds it where it was."""
    code = """if True:
        import sys
        sys.path.insert(0, "")
        import copy
        import torch
        from tests.utils.training import test_distributed
        from tests.utils.training.test_distributed import BCE, HEADS, SHORT, make_texts
        from viralbert_utils.models import inference
        from viralbert_utils.models.classifiers import MultiTaskClassifier
        from viralbert_utils.training import loop
        from viralbert_utils.training.settings import Task
        from viralbert_utils.lessons.stages import Stage, fit_stages
        tasks = {t: Task(make_texts(40, n, 0), make_texts(20, n, 1), BCE)
                 for t, n in (("virality", 1), ("emotions", 3))}
        for where in ("cpu", "pretend:0"):
            encoder = test_distributed.make_encoder(0.0).to(where)
            words = encoder.get_input_embeddings()
            copies = [copy.deepcopy(encoder, {id(words): words}) for _ in range(2)]
            new = [MultiTaskClassifier(e, HEADS, "mean", train_embeddings=False) for e in copies]
            loop.fit(new[0], tasks, SHORT)
            fit_stages(new[1], tasks, [Stage(SHORT, 0), Stage(SHORT, 1)])
            inference.predict_logits(new[0], tasks["virality"].train.rows, 0, task="virality")
            inference.text_vectors(encoder, tasks["virality"].train.rows, 0)
            for module in (encoder, *new):
                assert {str(p.device) for p in [*module.parameters(), *module.buffers()]} == {where}
            assert tasks["virality"].train.labels.device.type == "cpu"
    """
    assert pretending("-c", code) == ""


def test_no_step_of_a_training_waits_for_the_device():
    """Twice the steps are no more looks at the device: losses and cosines are read once an epoch,
    or every 50 steps."""
    code = """if True:
        import sys
        sys.path.insert(0, "")
        from dataclasses import replace
        import pretend, torch
        from tests.utils.training.test_distributed import BCE, HEADS, make_encoder, make_texts
        from viralbert_utils.models.classifiers import MultiTaskClassifier
        from viralbert_utils.training import loop
        from viralbert_utils.training.settings import Settings, Task
        looks = {}
        for n_texts in (160, 320):
            for surgery in ("none", "pcgrad"):
                tasks = {t: Task(make_texts(n_texts, n, 0), make_texts(20, n, 1), BCE)
                         for t, n in (("virality", 1), ("emotions", 3))}
                encoder = make_encoder(0.1).to("pretend:0")
                model = MultiTaskClassifier(encoder, HEADS, "mean", train_embeddings=False)
                pretend.WAITS.clear()
                settings = Settings(epochs=1, batch_size=16, surgery=surgery, clip_norm=0)
                loop.fit(model, tasks, settings, log=[])
                looks[surgery, n_texts] = sum(pretend.WAITS.values())
        print(looks["none", 320] - looks["none", 160], looks["pcgrad", 320] - looks["pcgrad", 160])
        print(looks["pcgrad", 160])
    """
    growth, looks = pretending("-c", code).splitlines()
    assert growth == "0 0", "20 more steps"
    assert 0 < int(looks) < 200


@pytest.fixture(scope="module")
def lessons() -> dict[str, Page]:
    """All lessons, executed on the pretended device."""
    pretending("-m", "viralbert.cli", "run", "--profile", "smoke", timeout_s=3600)
    run = Run("smoke", device="pretend:0")
    return {notebook.name: report.read_page(run.executed(notebook)) for notebook in run.notebooks}


def test_every_lesson_runs_on_another_device_than_the_cpu(lessons):
    assert list(lessons) == [notebook.name for notebook in catalogue.notebooks()]
    for page in lessons.values():
        assert page.stamp["environment"]["device"] == "pretend"
        assert "on pretend. It took" in report.origin(page)


def test_a_lesson_says_the_same_on_every_device(lessons, smoke):
    """The arithmetic is the CPU's, so the figures are."""
    n_compared = 0
    for name, page in lessons.items():
        if (
            name == "09_export_and_serve"
        ):  # measures times and rounding, and computes on the CPU in any case
            continue
        here, there = (
            dict(numbers("", records)) for records in (page.records, smoke[name].records)
        )
        assert here.keys() == there.keys()
        for what, value in here.items():
            # The shipped model answers in eight bits on a CPU, elsewhere as it was trained.
            if not what.startswith(("run.", "cache.ratio", "shipped.")):
                assert value == pytest.approx(there[what], abs=2e-3, rel=2e-3), f"{name}: {what}"
                n_compared += 1
    assert n_compared > 500


def numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Every number of a record, by name."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from numbers(f"{name}.{key}" if name else key, part)
    elif isinstance(value, int | float):
        yield name, value


def test_a_model_is_trained_used_and_exported_on_another_device(tmp_path):
    """From texts to answers by the commands; the export computes on the CPU and answers the
    same."""
    train = [
        "train",
        "--dataset",
        "multitask",
        "--max-rows",
        "150",
        "--epochs",
        "1",
        "--max-length",
        "16",
    ]
    code = f"""if True:
        import sys
        from viralbert.cli import main
        folder = {str(tmp_path)!r}
        assert main([*{train!r}, "--output", folder + "/m"]) == 0
        for model in ("m/model", "onnx"):
            if model == "onnx":
                assert main(["export", "--model", folder + "/m/model", "-o", folder + "/onnx"]) == 0
            print("answer")
            assert main(["predict", "--model", folder + "/" + model, "Кот сам открыл дверь."]) == 0
    """
    printed = pretending("-c", code)
    answers = [json.loads(part.strip().splitlines()[0]) for part in printed.split("answer\n")[1:]]
    assert answers[0]["viral_score"] == pytest.approx(answers[1]["viral_score"], abs=1e-4)
    assert (
        json.loads((tmp_path / "m" / "metrics.json").read_text())["environment"]["device"]
        == "pretend"
    )
