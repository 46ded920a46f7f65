"""Options that several commands share, and what they are read into."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viralbert.terminal import Parser
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]


def file_path(text: str) -> Path:
    """Read an option that names a file or a folder; `~` is a home."""
    try:
        return own_path(text)
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def device_options(answers: bool = False) -> Parser:
    """Options of whatever computes with a model.

    Args:
        answers: Whether a trained model answers, which may be an export or the shipped one.
    """
    parser = Parser(add_help=False)
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:1 or mps; CUDA if there is one"
        + (
            ". An export: always cpu; the model that comes with viralbert: cpu unless another is "
            "named"
            if answers
            else ""
        ),
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="precision of matrix products; auto (default): float32 on a CPU, faster on a GPU",
    )
    return parser


def model_options() -> Parser:
    """Options of whatever reads a trained model."""
    parser = Parser(add_help=False, parents=[device_options(answers=True)])
    parser.add_argument(
        "--model",
        default="",
        metavar="FOLDER",
        help="a folder with a lesson's classifier, with a model of `viralbert train` (model/), or "
        "with an export; without it, the model that comes with viralbert",
    )
    return parser


def labelled_options(evaluated: tuple[str, ...]) -> Parser:
    """Options that say which labelled texts are read.

    Args:
        evaluated: The splits that are judged by if none is named.
    """
    parser = Parser(add_help=False)
    parser.add_argument(
        "--data", help="sample (default), hub or a folder laid out as <set>/<split>.csv"
    )
    parser.add_argument(
        "--virality-file",
        metavar="FILE",
        help="a table with text and label (0/1) that replaces the data's virality set",
    )
    parser.add_argument(
        "--max-rows", type=int, help="only the first rows of each table; all if not given"
    )
    parser.add_argument(
        "--seed",
        type=int,
        help="decides on splits, where the data have none, and on what is random in training (0)",
    )
    parser.add_argument(
        "--evaluate",
        type=_parts_of_data,
        metavar="dev,test",
        help=f"the splits to judge by ({','.join(evaluated)})",
    )
    return parser


def _parts_of_data(text: str) -> tuple[str, ...]:
    """`dev,test` as a tuple; `trainings.Training` knows which there are."""
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise argparse.ArgumentTypeError(f"expected dev, test or both (dev,test), found {text!r}")
    return parts


def example(line: str) -> dict[str, Any]:
    """Arguments of a parser whose help ends with a line to try."""
    return {
        "epilog": f"example:\n  {line}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def model_folder(options: argparse.Namespace, folder: str | None = None) -> str:
    """The folder that `--model` names, or that of the model which comes with the package."""
    if folder or (folder is None and options.model):
        return folder or options.model
    from viralbert.serving import shipped

    return str(shipped.folder(options.device, options.precision))
