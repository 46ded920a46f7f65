"""The `viralbert` command: what it is made of, and how it ends."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Any

from viralbert.commands import answers, course, moments, service, training, training_data
from viralbert.commands.options import example
from viralbert.packages import PROJECT, missing
from viralbert.terminal import Parser, complain, quote_warnings, say
from viralbert_utils.base.errors import DataError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (1: it could not be done, and the message says why).

    The serving image has only what serving needs, so a command may lack a package; that is a
    message, too.
    """
    quote_warnings()
    options = _parser().parse_args(arguments)
    try:
        status = int(options.function(options) or 0)
        sys.stdout.flush()  # here, where it can still be said that the disk is full
        return status
    except BrokenPipeError:  # "| head" has seen enough
        _drop_output()
        return 0
    except DataError as error:
        complain(error)
        return 1
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", __package__, *sys.stdlib_module_names):
            raise
        complain(missing(module), options.command)
        return 1
    except OSError as error:  # no space, a read-only disk, a path that leads nowhere
        _drop_output()
        complain(f"{error}; what was finished before is kept", options.command)
        return 1
    except KeyboardInterrupt:
        complain("stopped; what was finished is kept, and the next run goes on from there")
        return 130


class _Version(argparse.Action):
    """Prints the version of the installed package; it is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        try:
            version = importlib.metadata.version(PROJECT)
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed; run from its folder)"
        say(f"viralbert {version}")
        parser.exit()


def _drop_output() -> None:
    """Let what could not be written to the standard output go, or Python tries again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> Parser:
    parser = Parser(
        prog="viralbert",
        description="Run the ViralBERT course and use its models.",
        **example("viralbert predict 'Кот сам открыл дверь.'"),
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, dest="command", metavar="command")
    course.add_run(commands)
    course.add_report(commands)
    course.add_download(commands)
    training.add_pretrain(commands)
    answers.add_predict(commands)
    moments.add_moments(commands)
    service.add_serve(commands)
    service.add_export(commands)
    training.add_train(commands)
    training.add_evaluate(commands)
    course.add_check_env(commands)
    training_data.add_translate(commands)
    training_data.add_audit(commands)
    training_data.add_paraphrase(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
