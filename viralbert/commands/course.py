"""The course: `viralbert run`, `report`, `download`, `check-env`."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING

from viralbert.commands.options import device_options, example, file_path
from viralbert.packages import install, requirements
from viralbert.places import check_output
from viralbert.terminal import Parser, say
from viralbert_utils.base.files import checkout, needed_checkout

if TYPE_CHECKING:
    from viralbert.commands.options import Commands
    from viralbert.course.runner import Run


def add_run(commands: Commands) -> None:
    """Add `viralbert run`."""
    command = commands.add_parser(
        "run",
        parents=[_course_options()],
        help="execute the notebooks that are not up to date",
        **example("viralbert run --only 07 --set 07.epochs=5"),
    )
    command.set_defaults(function=_run)


def add_report(commands: Commands) -> None:
    """Add `viralbert report`."""
    command = commands.add_parser(
        "report",
        parents=[_course_options()],
        help="write the report of a run",
        **example("viralbert report --only 07 --set 07.epochs=5"),
    )
    command.set_defaults(function=_report)


def add_download(commands: Commands) -> None:
    """Add `viralbert download`."""
    command = commands.add_parser(
        "download",
        parents=[_course_options()],
        help="fetch beforehand what a run takes from the hub",
        **example("viralbert download --profile full --to carried"),
    )
    command.add_argument(
        "--to", type=file_path, help="a folder to carry or share; without it, the usual cache"
    )
    command.set_defaults(function=_download)


def add_check_env(commands: Commands) -> None:
    """Add `viralbert check-env`."""
    command = commands.add_parser(
        "check-env",
        help="show what is installed, what is missing, and which device is used",
        **example("viralbert check-env"),
    )
    command.set_defaults(function=_check_environment)


def _course_options() -> Parser:
    """Options that say which notebooks run, and with what."""
    parser = Parser(add_help=False, parents=[device_options()])
    parser.add_argument(
        "--profile", default="sample", help="smoke, sample (default) or full (profiles/*.yaml)"
    )
    parser.add_argument(
        "--data",
        default="",
        help="sample, hub or a folder laid out as <set>/<split>.csv; the profile's if not given",
    )
    parser.add_argument(
        "--encoder", default="", help="embedded, a hub name or a folder; the profile's if not given"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        help="number of a notebook, can be repeated; those whose results it needs run before it; "
        "all if not given",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="03.epochs=2",
        help="a parameter of a notebook; can be repeated",
    )
    return parser


def _course_run(options: argparse.Namespace) -> Run:
    needed_checkout(f"viralbert {options.command}")
    from viralbert.course.runner import Run

    only = [number for value in options.only for number in value.split(",")]
    return Run(
        options.profile,
        options.data,
        options.encoder,
        only,
        options.settings,
        device=options.device or "",
        precision=options.precision,
    )


def _run(options: argparse.Namespace) -> None:
    from viralbert.course import runner

    outcome = runner.run(_course_run(options))
    for names, what in ((outcome.executed, "executed"), (outcome.skipped, "up to date")):
        if names:
            say(f"{what}: {', '.join(names)}")


def _report(options: argparse.Namespace) -> None:
    from viralbert.course.report import report

    say(f"report: {os.path.relpath(report(_course_run(options)))}")


def _download(options: argparse.Namespace) -> None:
    from viralbert.course.download import download

    folder = options.to
    if folder:
        check_output(folder, folder=True)
    encoders, sets = download(_course_run(options), folder)
    if not encoders and not sets:
        say(f"profile {options.profile!r} takes nothing from the hub")
        return
    say(f"ready: encoders {', '.join(encoders) or 'none'}; data sets {', '.join(sets) or 'none'}")
    data = f" DATA={folder / 'data'}" if folder and sets else ""
    cache = f"HF_HUB_CACHE={(folder / 'hub').resolve()} " if folder and encoders else ""
    say(
        f"run without a network: {cache}HF_HUB_OFFLINE=1 make reports "
        f"PROFILE={options.profile}{data}"
    )


def _check_environment(options: argparse.Namespace) -> int:
    wrong = _count_different_packages()
    python = f"Python {sys.version.split()[0]}"
    try:
        from viralbert_utils.base.devices import describe

        print(f"[ok] {python}, torch {importlib.metadata.version('torch')}, device: {describe()}")
    except ModuleNotFoundError as error:
        print(
            f"[missing] {python} without {error.name}: no model can be trained here, and only "
            "exported ones can be used"
        )
        wrong += 1
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    print(
        f"[{'ok' if browser else 'optional'}] Chromium for the page tests: "
        f"{browser or 'not found, those tests are skipped'}"
    )
    return 1 if wrong else 0


def _count_different_packages() -> int:
    """Compare what is installed with the lock, or with what the package asks for, and print it."""
    root = checkout()
    if root is None:
        return _count_missing_packages()
    pins = re.findall(
        r"^([\w.-]+)==([^\s;]+)(?: ; (.*?))? \\$", (root / "requirements.lock").read_text(), re.M
    )
    wrong = 0
    for name, wanted, marker in pins:
        installed = _version(name)
        if installed is None and marker:  # a package for another platform or Python
            continue
        if installed != wanted:
            wrong += 1
            print(f"[different] {name}: {installed or 'missing'}, the lock says {wanted}")
    print(
        f"[{'ok' if not wrong else 'different'}] {len(pins) - wrong} of {len(pins)} packages as "
        "in requirements.lock"
    )
    return wrong


def _count_missing_packages() -> int:
    """Look for the packages that an installation without a checkout asks for, and print it."""
    lines = [line for line in requirements() if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line)[0] for line in lines]
    missing_names = [name for name in names if _version(name) is None]
    for name in missing_names:
        print(f"[missing] {name}: {install(name)}")
    n_found = len(names) - len(missing_names)
    print(f"[{'missing' if missing_names else 'ok'}] {n_found} of {len(names)} packages are there")
    return len(missing_names)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None
