"""Where tensors live, and in which precision they are computed.

No GPU is needed: a pretended device (`pretended/pretend.py`) refuses to meet the CPU's tensors.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from viralbert.course import catalogue, report
from viralbert.course.report import Page
from viralbert.course.runner import Run
from viralbert_utils.base import devices
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT
from viralbert_utils.encoders import loading
from viralbert_utils.lessons import frozen
from viralbert_utils.models import inference
from viralbert_utils.models.classifiers import PooledClassifier
from viralbert_utils.training import loop, losses, surgery
from viralbert_utils.training.settings import Encoded, Settings, Task

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


# The seam


def test_the_device_is_the_one_that_was_asked_for(monkeypatch):
    assert devices.default("cpu") == torch.device("cpu")
    monkeypatch.setenv(devices.DEVICE, "cuda:7")
    with pytest.raises(DataError, match="device 'cuda:7' is not on this machine; use cpu"):
        devices.default()
    for unknown in ("gpu", "cuda:x"):
        with pytest.raises(DataError, match=f"device '{unknown}' is not on this machine"):
            devices.default(unknown)
    monkeypatch.setenv(devices.DEVICE, "")
    assert devices.default().type in ("cpu", "cuda")


def test_a_wrong_choice_changes_nothing(monkeypatch):
    monkeypatch.setenv(devices.DEVICE, "cpu")
    monkeypatch.setenv(devices.PRECISION, "auto")  # what is chosen below ends with this test
    with pytest.raises(DataError, match="'cuda:9' is not on this machine"):
        devices.choose("cuda:9")
    with pytest.raises(
        DataError, match="precision 'half' is not known; use auto, float32, bfloat16, float16"
    ):
        devices.choose("cpu", "half")
    assert (os.environ[devices.DEVICE], os.environ[devices.PRECISION]) == ("cpu", "auto")
    devices.choose(None, "bfloat16")
    assert devices.describe() == "cpu, bfloat16"


@pytest.mark.parametrize(
    ("native", "capability", "expected"),
    [
        (True, (9, 0), torch.bfloat16),
        (False, (7, 5), torch.float16),
        (False, (6, 1), torch.float32),
    ],
)
def test_precision_follows_the_card(monkeypatch, native, capability, expected):
    """An H100 has bfloat16; a T4 only emulates it and has float16; a Pascal card has neither."""
    asked = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return native or including_emulation

    monkeypatch.delenv(devices.PRECISION, raising=False)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla")
    card = torch.device("cuda", 0)
    assert devices.precision(card) == expected
    assert devices.precision(card, "float32") == torch.float32
    assert asked == [False, False]
    if not native:
        with pytest.raises(DataError, match="Tesla has no bfloat16; use float16, float32 or auto"):
            devices.precision(card, "bfloat16")
    assert devices.precision(torch.device("cpu")) == torch.float32
    monkeypatch.setenv(devices.PRECISION, "float32")
    assert devices.precision(card) == torch.float32


def test_batches_come_in_order_and_errors_come_through():
    def fail() -> torch.Tensor:
        raise ValueError("no such text")

    for device in (torch.device("cpu"), torch.device("meta")):
        made = [lambda k=k: (torch.full((2,), k), (torch.zeros(k + 1),)) for k in range(9)]
        found = list(devices.ahead(made, device))
        assert [len(nested[0]) for _, nested in found] == list(range(1, 10))
        assert {tensor.device.type for tensor, _ in found} == {device.type}
        with pytest.raises(ValueError, match="no such text"):
            list(devices.ahead([*made, fail], device))


# Training in half precision


def little_task(n: int = 96) -> tuple[PooledClassifier, Task]:
    torch.manual_seed(0)
    encoder = tiny.bert(40, 16)
    rows = [[1, 5 + k % 3, 10 + k % 7, 2] for k in range(n)]
    labels = torch.nn.functional.one_hot(torch.arange(n) % 3, 3)
    encoded = Encoded(rows, labels)
    return PooledClassifier(encoder, 3, train_embeddings=False), Task(
        encoded, encoded, losses.binary_cross_entropy()
    )


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_and_goes_on_after_a_stop(precision, tmp_path):
    how = {"epochs": 4, "batch_size": 8, "learning_rate": 1e-2, "warmup": 0}
    settings = Settings(**how, precision=precision)
    model, task = little_task()
    history = loop.fit(model, task, settings)
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    exact, _ = little_task()
    loop.fit(exact, task, Settings(**how))
    assert not torch.equal(exact.head.weight, model.head.weight), (
        "it was computed in another precision"
    )

    cut, _ = little_task()
    broken = Task(task.train, task.validation, stopping_after(2, task.loss))
    with pytest.raises(KeyboardInterrupt):
        loop.fit(cut, broken, settings, checkpoint=tmp_path / "c.pt")
    again, _ = little_task()
    assert loop.fit(again, task, settings, checkpoint=tmp_path / "c.pt").equals(history)
    assert torch.equal(again.head.weight, model.head.weight)


def test_gradients_that_float16_rounds_to_zero_arrive():
    model, task = little_task()
    tiny = Task(
        task.train, task.validation, lambda logits, labels: task.loss(logits, labels) * 1e-6
    )
    before = model.encoder.encoder.layer[0].output.dense.weight.clone()
    settings = Settings(epochs=1, learning_rate=1e-2, warmup=0, precision="float16", weight_decay=0)
    loop.fit(model, tiny, settings)
    moved = (model.encoder.encoder.layer[0].output.dense.weight != before).float().mean()
    assert moved > 0.9, "without loss scaling nearly all of these gradients are zero"


@pytest.mark.parametrize(("saved", "resumed"), [("float32", "float16"), ("float16", "float32")])
def test_another_card_goes_on_with_a_checkpoint(monkeypatch, saved, resumed, tmp_path):
    """`auto` means another precision there; the loss scaler starts anew where the first run had
    none."""
    settings = Settings(epochs=2, batch_size=16, learning_rate=1e-3)
    model, task = little_task()
    monkeypatch.setenv(devices.PRECISION, saved)
    half = Task(task.train, task.validation, stopping_after(1, task.loss))
    with pytest.raises(KeyboardInterrupt):
        loop.fit(model, half, settings, checkpoint=tmp_path / "c.pt")
    monkeypatch.setenv(devices.PRECISION, resumed)
    again, _ = little_task()
    assert len(loop.fit(again, task, settings, checkpoint=tmp_path / "c.pt")) == 2


def stopping_after(n_epochs: int, loss: losses.Loss) -> losses.Loss:
    """The loss, until the evaluation of the epoch after so many: then the power is cut."""
    calls = []

    def cut(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.extend([1] * (not logits.requires_grad))
        if len(calls) > n_epochs:
            raise KeyboardInterrupt
        return loss(logits, labels)

    return cut


@pytest.mark.parametrize("name", ["pcgrad", "gradvac", "imtl-g", "upgrad"])
def test_a_step_that_overflows_spoils_no_surgery(name):
    """Float16 overflows now and then; the step is skipped, and the next one is projected as if it
    had not been."""
    weights = torch.nn.Parameter(torch.zeros(2))
    found = {}
    for spoilt in (True, False):
        gradients = surgery.TaskGradients([weights], ["a", "b"], name)
        for first in ([torch.inf] if spoilt else []) + [1.0]:
            for task, gradient in (("a", [first, 0.2]), ("b", [-1.0, 0.5])):
                with gradients.of(task):
                    (weights * torch.tensor(gradient)).sum().backward()
            cosine = gradients.combine()
            assert torch.isfinite(weights.grad).all() == (first == 1.0), (
                "the scaler sees what to skip"
            )
            found[spoilt], weights.grad = weights.grad, None
        assert float(cosine) == pytest.approx(-0.9 / (1.04 * 1.25) ** 0.5, abs=1e-5)
    assert torch.allclose(found[True], found[False])


def test_layers_that_look_at_a_window_get_the_mask_as_it_is():
    """Spelt out, the mask would tell such layers to look everywhere."""
    mask = torch.ones(2, 5, dtype=torch.long, device="meta")
    for kinds, n_dimensions in (
        (None, 4),
        (["full_attention"] * 2, 4),
        (["full_attention", "sliding_attention"], 2),
    ):
        config = SimpleNamespace(_attn_implementation="sdpa", layer_types=kinds)
        assert loading.mask_for(SimpleNamespace(config=config), mask).ndim == n_dimensions


def test_frozen_layers_and_evaluation_follow_the_precision(tmp_path):
    model, task = little_task()
    found = {}
    for precision in ("float32", "bfloat16"):
        vectors = frozen.cache(model, task.train, 0, tmp_path, precision=precision).vectors
        found[precision] = (
            vectors,
            inference.predict_logits(model, task.train.rows, 0, precision=precision),
        )
    assert len(list(tmp_path.iterdir())) == 2, (
        "vectors of one precision are not taken for those of another"
    )
    for exact, near in zip(*found.values(), strict=True):
        difference = np.abs(
            np.asarray(exact, dtype=np.float32) - np.asarray(near, dtype=np.float32)
        )
        assert 0 < difference.max() < 0.1


# The pretended device


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
    task = Run("smoke", device="pretend:0")
    return {notebook.name: report.read_page(task.executed(notebook)) for notebook in task.notebooks}


def test_every_lesson_runs_on_another_device_than_the_cpu(lessons):
    assert list(lessons) == [notebook.name for notebook in catalogue.notebooks()]
    for page in lessons.values():
        assert page.stamp["environment"]["device"] == "pretend"
        assert "on pretend." in report.origin(page.stamp)


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
            if not what.startswith(("run.", "cache.ratio")):
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
                assert main(["export", folder + "/m/model", "-o", folder + "/onnx"]) == 0
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
