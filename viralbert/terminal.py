"""Lines for people at a terminal, which shows them and does not obey them.

Names of files may hold anything.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

# What controls a terminal, breaks a line, turns the direction of writing, or is no character at
# all.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of showing it.

    Control characters and broken letters are written as Python escapes them.
    """
    return UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def counted(n: int, what: str) -> str:
    """A number of things: `1 file`, `2 files`, `1,200 files`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def say(text: object) -> None:
    """Print one line."""
    print(printable(str(text)))


def complain(text: object, command: str = "") -> None:
    """Print one line as an error, behind the name of the program.

    The name of the command follows if one was given.
    """
    print(printable(f"{f'viralbert {command}'.strip()}: {text}"), file=sys.stderr)


class Lines(logging.Formatter):
    """Each record of a log as one line; a traceback below it keeps its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return printable(super().formatMessage(record))


@contextmanager
def shown(logger: str) -> Iterator[None]:
    """Print what a logger has to tell as lines on the standard error, meanwhile."""
    lines = logging.StreamHandler()
    lines.setFormatter(Lines())
    source = logging.getLogger(logger)
    level, passes_on = source.level, source.propagate
    source.addHandler(lines)
    source.setLevel(logging.INFO)
    source.propagate = False  # or somebody else's handler would print them again
    try:
        yield
    finally:
        source.removeHandler(lines)
        source.setLevel(level)
        source.propagate = passes_on


def quote_warnings() -> None:
    """Print warnings in lines of this kind, too, where nobody has said how logs are written."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Lines())


class Parser(argparse.ArgumentParser):
    """Reads arguments; what it says about wrong ones is printable."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """See `argparse.ArgumentParser`; what a command does not know is an error of that command.

        Otherwise the program's parser would complain, and show its own usage.
        """
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser`; where something is missing, the example shows it."""
        if "are required" in message and self.epilog:
            message += f"; for {' '.join(self.epilog.split())}"
        super().error(printable(message))
