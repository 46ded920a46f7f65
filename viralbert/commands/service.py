"""Models for others: `viralbert serve`, `export`."""

from __future__ import annotations

import argparse
import logging
import os
from typing import TYPE_CHECKING

from viralbert.commands.options import device_options, example, file_path, model_folder
from viralbert.places import check_output
from viralbert.terminal import Lines, printable, say
from viralbert_utils.base.files import own_path

if TYPE_CHECKING:
    from viralbert.commands.options import Commands


def add_serve(commands: Commands) -> None:
    """Add `viralbert serve`."""
    command = commands.add_parser(
        "serve",
        parents=[device_options(answers=True)],
        help="answer over HTTP with classifiers and, if they can, moments; with pages to try them",
        **example("viralbert serve --model emotions=models/a/model --model reviews=models/b/onnx"),
    )
    command.add_argument(
        "--model",
        action="append",
        default=[],
        dest="models",
        metavar="[NAME=]FOLDER",
        help="a folder as predict takes it; can be repeated, each with a NAME by which requests "
        "choose (the first model answers those that choose none); NAME= alone is the model that "
        "comes with viralbert",
    )
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="127.0.0.1 (default): for this machine alone; 0.0.0.0: for everybody who sends "
        "the key in VIRALBERT_API_KEY",
    )
    command.add_argument(
        "--allow-no-key",
        action="store_true",
        help="let everybody in without a key: only where something else keeps strangers out",
    )
    command.add_argument(
        "--allow-host",
        action="append",
        default=[],
        dest="hosts",
        metavar="NAME",
        help="a name that clients may use, besides localhost and addresses; can be repeated; "
        "* allows any",
    )
    command.add_argument(
        "--port", type=int, default=8000, help="8000 if not given; 0 takes a free one"
    )
    command.add_argument(
        "--limit",
        action="append",
        default=[],
        dest="limits",
        metavar="requests=256",
        help="a limit of the service; can be repeated. The message about an unknown one "
        "lists them all",
    )
    command.set_defaults(function=_serve)


def add_export(commands: Commands) -> None:
    """Add `viralbert export`."""
    command = commands.add_parser(
        "export",
        help="export a trained model as ONNX, to serve it without torch",
        **example("viralbert export --model models/mine/model --output exported --int8"),
    )
    command.add_argument(
        "--model",
        required=True,
        metavar="FOLDER",
        help="a lesson's classifier or hybrid, or a model of `viralbert train`",
    )
    command.add_argument(
        "-o",
        "--output",
        required=True,
        type=file_path,
        help="a new folder, or an export to replace",
    )
    command.add_argument(
        "--int8", action="store_true", help="about a quarter of the size, and faster"
    )
    command.add_argument(
        "--layout",
        choices=("plain", "triton"),
        default="plain",
        help="plain (default), or triton: the output becomes a model's folder in the repository "
        "of a Triton server",
    )
    command.set_defaults(function=_export)


def _serve(options: argparse.Namespace) -> None:
    from viralbert.serving.limits import ServiceLimits
    from viralbert.serving.names import check_name, named

    for given in options.models:
        name, is_named, _ = given.partition("=")
        if is_named and "/" not in name and not own_path(given).is_dir():
            check_name(name)
    limits, models = ServiceLimits.parse(options.limits), named(options.models)
    folders = {name: model_folder(options, folder) for name, folder in models.items()}
    # FastAPI's error is no ModuleNotFoundError where it is missing.
    import python_multipart  # noqa: F401

    from viralbert.serving.server import serve

    log = logging.StreamHandler()
    log.setFormatter(Lines("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[log])
    serve(
        folders,
        options.host,
        options.port,
        limits,
        os.environ.get("VIRALBERT_API_KEY", ""),
        lambda url: print(printable(f"serving on {url}"), flush=True),
        options.device,
        options.precision,
        options.hosts,
        not options.allow_no_key,
    )


def _export(options: argparse.Namespace) -> None:
    check_output(options.output, folder=True)
    from viralbert.serving.export import export

    exported = export(options.model, options.output, options.int8, layout=options.layout)
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file()) / 1e6
    off = exported.about["difference"]
    say(f"{options.output}: {size:.0f} MB; probabilities differ from torch's by {off:.1g} at most")
