"""The `viralbert` command: the functions of the module from a terminal."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from viralbert_utils.course import CourseError, Run, device, run
from viralbert_utils.data import ROOT, DataError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (1: it could not be done, and the message says why)."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.function(options) or 0)
    except (CourseError, DataError) as error:
        print(f"viralbert: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("viralbert: stopped; what was finished is kept, the next run goes on from there", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="viralbert", description="Run the ViralBERT course and use its models.")
    commands = parser.add_subparsers(required=True, metavar="command")
    task = argparse.ArgumentParser(add_help=False)
    task.add_argument("--profile", default="sample", help="smoke, sample or full (profiles/*.yaml)")
    task.add_argument("--data", default="", help="sample, hub or a folder laid out as <set>/<split>.csv")
    task.add_argument("--encoder", default="", help="embedded, a hub name or a folder")
    task.add_argument(
        "--only", action="append", default=[], help="number of a notebook; it brings what it reads from along"
    )
    task.add_argument("--set", action="append", default=[], dest="settings", metavar="03.epochs=2", help="a parameter")
    command = commands.add_parser("run", parents=[task], help="execute the notebooks that are not up to date")
    command.set_defaults(function=_run)
    command = commands.add_parser("report", parents=[task], help="write the report of a run")
    command.set_defaults(function=_report)
    command = commands.add_parser("download", parents=[task], help="fetch what a run takes from the hub beforehand")
    command.add_argument("--to", default="", help="a folder to carry or share; the usual cache without it")
    command.set_defaults(function=_download)
    command = commands.add_parser("pretrain", help="train the embedded encoder's layers on plain text, resumable")
    command.add_argument("--source", action="append", required=True, metavar="drama.txt.xz=0.2",
                         help="a file of texts and its weight; tables as train.csv#column=0.1")  # fmt: skip
    command.add_argument("--output", required=True, help="folder for layers, history and checkpoint")
    command.add_argument("--steps", type=int, default=7000)
    command.add_argument("--bf16", action="store_true", help="bfloat16: faster where the processor has it")
    command.set_defaults(function=_pretrain)
    command = commands.add_parser("check-env", help="what is installed, what is missing, which device")
    command.set_defaults(function=_check_environment)
    command = commands.add_parser("translate", help="English texts to Russian with a Marian model, resumable")
    command.add_argument("source", help="CSV, Parquet or JSONL file with a column of English texts")
    command.add_argument("target", help="CSV file to write: the same rows with a column ru_text")
    command.add_argument("--column", default="text")
    command.add_argument("--model", default="Helsinki-NLP/opus-mt-en-ru", help="hub name or folder")
    command.add_argument("--batch-size", type=int, default=32)
    command.set_defaults(function=_translate)
    return parser


def _task(options: argparse.Namespace) -> Run:
    only = [number for value in options.only for number in value.split(",")]
    return Run(options.profile, options.data, options.encoder, only, options.settings)


def _run(options: argparse.Namespace) -> None:
    task = _task(options)
    outcome = run(task)
    for names, what in ((outcome.executed, "executed"), (outcome.skipped, "up to date")):
        if names:
            print(f"{what}: {', '.join(names)}")


def _report(options: argparse.Namespace) -> None:
    from viralbert_utils.site import report

    print(f"report: {os.path.relpath(report(_task(options)))}")


def _download(options: argparse.Namespace) -> None:
    from viralbert_utils.download import download

    folder = Path(options.to).expanduser() if options.to else None
    encoders, sets = download(_task(options), folder)
    if not encoders and not sets:
        print(f"profile {options.profile!r} takes nothing from the hub")
        return
    print(f"there: encoders {', '.join(encoders) or 'none'}; data sets {', '.join(sets) or 'none'}")
    data = f" DATA={folder / 'data'}" if folder and sets else ""
    cache = f"HF_HUB_CACHE={(folder / 'hub').resolve()} " if folder and encoders else ""
    print(f"run without a network: {cache}HF_HUB_OFFLINE=1 make reports PROFILE={options.profile}{data}")


def _pretrain(options: argparse.Namespace) -> None:
    from viralbert_utils import pretraining

    plan = pretraining.Plan(n_steps=options.steps, bf16=options.bf16)
    sources = [pretraining.Source.parse(text) for text in options.source]
    found = pretraining.run(sources, Path(options.output), plan)
    print(", ".join(f"{name} {value:.4g}" for name, value in found.items()))


def _check_environment(options: argparse.Namespace) -> int:
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)(?: ; (.*))?$", (ROOT / "requirements.lock").read_text(), re.M)
    wrong = 0
    for name, wanted, marker in pins:
        try:
            found = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            if marker:  # a package for another platform or Python
                continue
            found = "missing"
        if found != wanted:
            wrong += 1
            print(f"[different] {name}: {found}, the lock says {wanted}")
    print(f"[{'ok' if not wrong else 'different'}] {len(pins) - wrong} of {len(pins)} packages as in requirements.lock")
    print(f"[ok] Python {sys.version.split()[0]}, torch {importlib.metadata.version('torch')}, device: {device()}")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    print(
        f"[{'ok' if browser else 'optional'}] Chromium for the page tests: {browser or 'not found, those tests skip'}"
    )
    return 1 if wrong else 0


def _translate(options: argparse.Namespace) -> None:
    from viralbert_utils.translation import translate_file

    n_rows, n_failed = translate_file(options.source, options.target, options.column, options.model, options.batch_size)
    print(f"{n_rows} rows written to {options.target}, {n_failed} left without a translation (not written)")


if __name__ == "__main__":
    sys.exit(main())
