"""What the course does on a GPU: one command for a machine with a CUDA card, under eight minutes.

    make gpu-check                                            # with .venv, if it is there, or
    PYTHON=<another one> python benchmarks/gpu.py [--data FOLDER] [--output FILE]

It needs torch and transformers that see the card (any version that the course runs with) and the
other packages of `pyproject.toml`. It writes `benchmarks/gpu.md`, a part at a time: which card and
versions; whether the card answers as the CPU does; how often a training waits for it; seconds and
memory of a step with and without PCGrad on the ruBert-base shape; tokens a second of pretraining;
seconds of a training of the 28 emotions; two processes, where there are two cards; and all lessons
on the smoke profile. `--data` names real texts; the sample's, repeated, take the same time.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# torch may come from an environment in which the project is not installed; kernels and processes
# look there, too.
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])
)

NOT_NEEDED = {"jupyterlab"}  # lessons run without a window
PACKAGES = ("torch", "transformers", "torchjd", "numpy")
HEAD = """# The course on a GPU

Written by `make gpu-check` (`benchmarks/gpu.py`).
"""


def missing_packages() -> list[str]:
    """Packages of the course that are not installed here; others in another version are only
    named."""
    import tomllib

    from packaging.requirements import Requirement

    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*about["dependencies"], *about["optional-dependencies"]["serve"]]
    found = []
    for requirement in map(Requirement, wanted):
        if requirement.name in NOT_NEEDED:
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found.append(requirement.name)
            continue
        if version.split("+")[0] not in requirement.specifier:
            print(
                f"{requirement.name} is {version}, the course asks for {requirement.specifier}: "
                "going on with it"
            )
    return found


def machine() -> list[str]:
    """The card and the versions."""
    import torch

    from viralbert_utils.base import devices

    device = devices.default()
    lines = ["| what | |", "|---|---|", f"| device | {devices.describe()} |"]
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        lines.append(
            f"| memory, compute capability | {about.total_memory / 2**30:.0f} GiB, "
            f"{about.major}.{about.minor} |"
        )
        lines.append(f"| cards | {torch.cuda.device_count()} |")
    lines.append(f"| processors | {os.cpu_count()} |")
    return [*lines, *(f"| {name} | {importlib.metadata.version(name)} |" for name in PACKAGES)]


def parity(texts: dict[str, Any], scale: float) -> list[str]:
    """One training on the card; its model's probabilities there and on the CPU."""
    import copy

    from viralbert_utils.base import devices
    from viralbert_utils.models import inference

    model = _trained(texts, "pcgrad", round(10 * scale) * 64)[0]
    rows = texts["emotions"].rows[:500]
    on_cpu = copy.deepcopy(model).cpu()
    expected = inference.predict_logits(
        on_cpu, rows, 0, precision="float32", task="emotions"
    ).sigmoid()
    lines = [
        "| computed in | greatest difference of a probability to the CPU in float32 |",
        "|---|---|",
    ]
    usual = str(devices.precision(devices.of(model))).removeprefix("torch.")
    for precision in dict.fromkeys(("float32", usual)):
        found = inference.predict_logits(
            model, rows, 0, precision=precision, task="emotions"
        ).sigmoid()
        lines.append(f"| {precision} | {(found - expected).abs().max():.1e} |")
    return lines


def waits(texts: dict[str, Any], scale: float) -> list[str]:
    """How often an epoch waits for the card: twice the steps must not wait twice as often."""
    import torch

    lines = ["| steps | times PyTorch waited | PCGrad's epoch, s |", "|---|---|---|"]
    for n_steps in (round(20 * scale), round(40 * scale)):
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            seconds = _trained(texts, "pcgrad", n_steps * 64)[1]
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
        n_waits = sum("synchronizing" in str(one.message) for one in seen)
        lines.append(f"| {n_steps} | {n_waits} | {seconds:.2f} |")
    return lines


def _trained(texts: dict[str, Any], surgery: str, n_texts: int) -> tuple[Any, float]:
    """A model for both tasks after an epoch over some of the texts, and the seconds."""
    import surgery as task

    from viralbert_utils.lessons import rare_classes
    from viralbert_utils.training import loop, losses
    from viralbert_utils.training.settings import Encoded, Settings, Task

    model = task.make_model("embedded")[0]
    share = n_texts / sum(map(len, texts.values()))
    tasks = {}
    for name, part in texts.items():
        own = _repeated(part, max(8, round(share * len(part))))
        few = Encoded(own.rows[:64], own.labels[:64])
        weights = rare_classes.positive_weights(own.labels, "sqrt")
        tasks[name] = Task(own, few, losses.binary_cross_entropy(weights))
    settings = Settings(
        epochs=1, batch_size=64, learning_rate=5e-4, head_factor=10, surgery=surgery
    )
    start = time.perf_counter()
    loop.fit(model, tasks, settings)
    return model, time.perf_counter() - start


def _repeated(part: Any, n_texts: int) -> Any:
    """So many texts, the given ones again and again."""
    from viralbert_utils.training.settings import Encoded

    positions = [k % len(part) for k in range(n_texts)]
    return Encoded([part.rows[p] for p in positions], part.labels[positions])


def steps(texts: dict[str, Any], scale: float) -> list[str]:
    """A step on the ruBert-base shape: plain, PCGrad in three ways."""
    import surgery as task

    lines = [
        "| step, batch 64 | s | times plain | least to greatest | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    shape = "ruBert-base" if scale >= 1 else "embedded"
    model = task.make_model(shape)[0].train()
    n_turns = max(2, round(20 * scale))
    enough = {
        name: _repeated(part, max(len(part), round(len(part) * scale)))
        for name, part in texts.items()
    }
    seconds, memory = task.measure(model, enough, n_turns)
    for name, spent in seconds.items():
        times = task.ratios(seconds, name)
        lines.append(
            f"| {name} | {statistics.median(spent):.4f} | {statistics.median(times):.2f} | "
            f"{min(times):.2f} to {max(times):.2f} | {memory.get(name, 0):.0f} |"
        )
    return [f"Shape: {shape}.", "", *lines]


def masked_pretraining(source: str, scale: float) -> list[str]:
    """Masked pretraining of the embedded encoder's layers."""
    from viralbert_utils.data import sources
    from viralbert_utils.encoders import embedded, loading
    from viralbert_utils.encoders.recipe import Recipe
    from viralbert_utils.lessons import pretraining

    folder = embedded.embedded_folder(replace(Recipe(), pretrained=False))
    tokenizer, encoder = loading.load_encoder(str(folder))
    texts = [
        str(text)
        for table in sources.load("emotions", source).splits.values()
        for text in table["text"]
    ]
    packed = pretraining.pack(tokenizer, texts, 64)
    corpus = pretraining.Corpus({"emotions": packed}, {"emotions": 1.0})
    lines = ["| sequences of 64 tokens in a batch | tokens a second |", "|---|---|"]
    for batch_size in (64, 512):
        plan = pretraining.Plan(n_steps=max(20, round(200 * scale)), batch_size=batch_size)
        history, _ = pretraining.pretrain(
            encoder, tokenizer.mask_token_id, corpus, plan, every=max(5, plan.n_steps // 10)
        )
        lines.append(f"| {batch_size} | {history['tokens_per_s'].iloc[1:].median():,.0f} |")
    return lines


def emotions(source: str, scale: float) -> list[str]:
    """A training of the 28 emotions, with the settings of `benchmarks/emotions.py`."""
    import emotions as task
    import pandas as pd

    from viralbert_utils.data import splits

    rows = task.load_rows(source) if source != "sample" else None
    if rows is None:
        from viralbert_utils.data import cleaning, sources

        table = cleaning.clean(sources.load("emotions"), **cleaning.RULES["emotions"]).splits["all"]
        rows = splits.by_label(table, {"train": 0.6, "tune": 0.2, "test": 0.2})
        n_times = max(1, round(30_000 * scale / len(rows["train"])))
        rows["train"] = pd.concat([rows["train"]] * n_times, ignore_index=True)
    settings = replace(task.SETTINGS, epochs=2)
    _, history, seconds = task.train("embedded", rows, settings)
    n_texts = len(rows["train"])
    what = (
        "real texts"
        if source != "sample"
        else "the sample's texts, repeated: the time counts, not the score"
    )
    return [
        f"{len(history)} epochs over {n_texts:,} texts ({what}): {seconds:.1f} s, "
        f"{len(history) * n_texts / seconds:,.0f} texts a second with evaluation."
    ]


def processes(scale: float) -> list[str]:
    """`viralbert train` on two cards, joined by nccl, beside one."""
    import tempfile

    import torch

    if torch.cuda.device_count() < 2:
        return [
            "Not run: it takes two cards, and there "
            f"{'is one' if torch.cuda.device_count() else 'is none'}."
        ]
    lines = ["| processes | s | emotions, macro-F1 on test |", "|---|---|---|"]
    for n in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                str(n),
                "-m",
                "viralbert.cli",
                "train",
                "--dataset",
                "multitask",
                "--epochs",
                "2",
                "--output",
                folder,
            ]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            found = re.search(r"emotions, macro-F1 on test: model ([\d.]+)", done.stdout)
            score = found[1] if found else "?"
            lines.append(f"| {n} | {time.perf_counter() - started:.0f} | {score} |")
    return lines


def lessons() -> list[str]:
    """Every lesson on the smoke profile."""
    from viralbert.course import report
    from viralbert.course.runner import Run
    from viralbert_utils.base import devices

    where = str(devices.default())
    # In a process of its own: a kernel counts its parent's memory as its own, and the card's is
    # free for it.
    command = [
        sys.executable,
        "-m",
        "viralbert.cli",
        "run",
        "--profile",
        "smoke",
        "--device",
        where,
    ]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.splitlines()[-2:])
    task = Run("smoke", device=where)
    lines = ["| lesson | s | peak memory, MiB |", "|---|---|---|"]
    for notebook in task.notebooks:
        page = report.read_page(task.executed(notebook))
        lines.append(
            f"| {page.name} | {page.seconds:.0f} | {page.records['run.peak_memory_mib']} |"
        )
    return lines


def main() -> None:
    """Run all parts and write the file anew after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--data", default="sample", help="folder of real texts, see data/README.md")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "gpu.md")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="below 1: a short try of this script, on any device",
    )
    options = parser.parse_args()
    if missing := missing_packages():
        sys.exit(
            f"not installed here: {', '.join(missing)}; pip install them beside this machine's "
            "own torch"
        )
    from viralbert_utils.base import devices
    from viralbert_utils.base.files import write_whole

    if devices.default().type != "cuda" and options.scale >= 1:
        sys.exit(
            f"this machine computes on {devices.describe()}; a CUDA card is needed (--scale 0.1 "
            "tries the script)"
        )
    import surgery as task

    tokenizer = task.make_model("embedded")[1]
    texts = task.load_texts(options.data, 1400, tokenizer)
    parts: dict[str, Callable[[], list[str]]] = {
        "Machine": machine,
        "Does the card answer as the CPU does?": lambda: parity(texts, options.scale),
        "Does a step wait for the card?": lambda: waits(texts, options.scale),
        "What PCGrad costs": lambda: steps(texts, options.scale),
        "Pretraining": lambda: masked_pretraining(options.data, options.scale),
        "28 emotions": lambda: emotions(options.data, options.scale),
        "Two processes": lambda: processes(options.scale),
        "Lessons, smoke profile": lessons,
    }
    text, failed, started = HEAD, [], time.perf_counter()
    for title, part in parts.items():
        try:
            lines = part()
        except Exception as error:  # the other parts are worth having
            failed.append(title)
            lines = [f"**Failed**: {type(error).__name__}: {error}"]
        text += "\n".join(["", f"## {title}", "", *lines, ""])
        print(f"{title}: {time.perf_counter() - started:.0f} s so far", flush=True)
        write_whole(options.output, text)
    write_whole(options.output, f"{text}\nAll of it took {time.perf_counter() - started:.0f} s.\n")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see {options.output}")


if __name__ == "__main__":
    main()
