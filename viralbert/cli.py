"""The `viralbert` command: the functions of the module from a terminal."""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import itertools
import json
import logging
import os
import re
import shlex
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viralbert.moments.limits import Limits
from viralbert.packages import install, missing, requirements
from viralbert.pipes import opened
from viralbert.terminal import (
    UNPRINTABLE,
    Lines,
    Parser,
    complain,
    counted,
    printable,
    quote_warnings,
    say,
)
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import checkout, needed_checkout, own_path

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]
    from viralbert.course.runner import Run
    from viralbert.moments.ranking import Moment


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
        complain("stopped; what was finished is kept, the next run goes on from there")
        return 130


def _drop_output() -> None:
    """Let what could not be written to the standard output go, or Python tries again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> Parser:
    parser = Parser(prog="viralbert", description="Run the ViralBERT course and use its models.")
    commands = parser.add_subparsers(required=True, dest="command", metavar="command")
    _add_run(commands)
    _add_report(commands)
    _add_download(commands)
    _add_pretrain(commands)
    _add_predict(commands)
    _add_moments(commands)
    _add_serve(commands)
    _add_export(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_check_env(commands)
    _add_translate(commands)
    _add_audit(commands)
    _add_paraphrase(commands)
    return parser


def _device_options() -> Parser:
    """Options of whatever computes with a model."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:1 or mps; CUDA if there is one. An export: always cpu; the "
        "model that comes with viralbert: cpu unless another is named",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of matrix products; auto: float32 on a CPU, what is fast on a GPU",
    )
    return parser


def _course_options() -> Parser:
    """Options that say which notebooks run, and with what."""
    parser = Parser(add_help=False, parents=[_device_options()])
    parser.add_argument(
        "--profile", default="sample", help="smoke, sample or full (profiles/*.yaml)"
    )
    parser.add_argument(
        "--data", default="", help="sample, hub or a folder laid out as <set>/<split>.csv"
    )
    parser.add_argument("--encoder", default="", help="embedded, a hub name or a folder")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        help="number of a notebook; it brings what it reads from along",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="03.epochs=2",
        help="a parameter",
    )
    return parser


def _model_options() -> Parser:
    """Options of whatever reads a trained model."""
    parser = Parser(add_help=False, parents=[_device_options()])
    parser.add_argument(
        "--model",
        default="",
        metavar="FOLDER",
        help="of a lesson's classifier, of `viralbert train` (its folder model), or of `viralbert "
        "export`; without it, the model that comes with viralbert",
    )
    return parser


def _labelled_options() -> Parser:
    """Options that say which labelled texts are read."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "--data", help="sample (default), hub or a folder laid out as <set>/<split>.csv"
    )
    parser.add_argument(
        "--virality-file",
        metavar="FILE",
        help="a table with text and label (0/1) in the place of the data's virality",
    )
    parser.add_argument("--max-rows", type=int, help="only the first rows of each table")
    parser.add_argument("--seed", type=int, help="decides on splits, where the data have none")
    parser.add_argument(
        "--evaluate", type=_parts_of_data, metavar="dev,test", help="the splits to judge by"
    )
    return parser


def _example(line: str) -> dict[str, Any]:
    """How a command's help ends: a line to try."""
    return {
        "epilog": f"example:\n  {line}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def _add_run(commands: Commands) -> None:
    command = commands.add_parser(
        "run", parents=[_course_options()], help="execute the notebooks that are not up to date"
    )
    command.set_defaults(function=_run)


def _add_report(commands: Commands) -> None:
    command = commands.add_parser(
        "report", parents=[_course_options()], help="write the report of a run"
    )
    command.set_defaults(function=_report)


def _add_download(commands: Commands) -> None:
    command = commands.add_parser(
        "download",
        parents=[_course_options()],
        help="fetch what a run takes from the hub beforehand",
    )
    command.add_argument(
        "--to", type=_path, help="a folder to carry or share; the usual cache without it"
    )
    command.set_defaults(function=_download)


def _add_pretrain(commands: Commands) -> None:
    command = commands.add_parser(
        "pretrain",
        parents=[_device_options()],
        help="train the embedded encoder's layers, resumable",
    )
    command.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="drama.txt.xz=0.2",
        help="a file of texts and its weight; tables as train.csv#column=0.1",
    )
    command.add_argument(
        "--output", required=True, type=_path, help="folder for layers, history and checkpoint"
    )
    command.add_argument("--steps", type=int, default=7000)
    command.set_defaults(function=_pretrain)


def _add_predict(commands: Commands) -> None:
    command = commands.add_parser(
        "predict",
        parents=[_model_options()],
        help="what a classifier says of texts, as JSON lines",
        **_example("viralbert predict 'Отдал кота на два дня, вернули другого'"),
    )
    command.add_argument(
        "--aim",
        default="",
        metavar="NAME",
        help="decide by thresholds for a purpose that are stored with the model; without it, by "
        "its usual ones",
    )
    command.add_argument("texts", nargs="*", metavar="TEXT")
    command.add_argument(
        "--file",
        default="",
        help="a text a line; or a CSV, TSV, Parquet, JSON or JSONL table "
        "with a column text; - reads lines from the standard input",
    )
    command.add_argument(
        "--table",
        default="",
        metavar="FILE",
        help="a table of videos for a hybrid or a cascade of lesson 07",
    )
    command.add_argument(
        "--label", metavar="COLUMN", help="of the table: the class, where known; label if there"
    )
    command.set_defaults(function=_predict)


def _add_moments(commands: Commands) -> None:
    command = commands.add_parser(
        "moments",
        parents=[_model_options()],
        help="where in a video are the moments: from subtitles; "
        "with a model for virality and emotions",
    )
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=_path,
        help="subtitle files, or folders of them (there: all but .json)",
    )
    command.add_argument(
        "-o", "--output", required=True, type=_path, help="gets a folder for each file"
    )
    command.add_argument(
        "--min", type=float, default=15, metavar="S", help="least length of a moment in seconds"
    )
    command.add_argument(
        "--max", type=float, default=60, metavar="S", help="greatest length in seconds"
    )
    command.add_argument(
        "--count", type=int, help="how many at most; without it the video's length decides"
    )
    command.add_argument(
        "--fps", type=float, default=25, help="frames a second of the video, for the edit list"
    )
    command.add_argument("--otio", action="store_true", help="an OpenTimelineIO timeline, too")
    command.add_argument(
        "--video", type=_path, help="cut the moments out of it with ffmpeg (one subtitle file only)"
    )
    command.add_argument(
        "--engine",
        choices=("local", "ray"),
        help="for archives: one folder with all folders in it, "
        "on several processes or on Ray; goes on where it was stopped. Always on the CPU, a "
        "process "
        "for each processor, so that the files are the same everywhere",
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="of the engine; as many as processors if not given"
    )
    command.set_defaults(function=_moments)


def _add_serve(commands: Commands) -> None:
    command = commands.add_parser(
        "serve",
        parents=[_device_options()],
        help="classifiers and, if they have them, the moments over HTTP, and pages to try them",
        **_example("viralbert serve --model emotions=models/a/model --model reviews=models/b/onnx"),
    )
    command.add_argument(
        "--model",
        action="append",
        default=[],
        dest="models",
        metavar="[NAME=]FOLDER",
        help="as of predict; can be repeated with a NAME each that requests choose by, the first "
        "answers the others; NAME= is the model that comes with viralbert",
    )
    command.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0: for everybody who has VIRALBERT_API_KEY"
    )
    command.add_argument(
        "--allow-no-key",
        action="store_true",
        help="for everybody without a key, too: only where something else keeps others out",
    )
    command.add_argument(
        "--allow-host",
        action="append",
        default=[],
        dest="hosts",
        metavar="NAME",
        help="a name under which it is asked, beside localhost and addresses; can be repeated; "
        "* any",
    )
    command.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    command.add_argument(
        "--limit",
        action="append",
        default=[],
        dest="limits",
        metavar="requests=256",
        help="one of limits.ServiceLimits; can be repeated",
    )
    command.set_defaults(function=_serve)


def _add_export(commands: Commands) -> None:
    command = commands.add_parser(
        "export",
        help="a trained model as ONNX, to serve it without torch",
        **_example("viralbert export --model models/mine/model --output exported --int8"),
    )
    command.add_argument(
        "--model",
        required=True,
        metavar="FOLDER",
        help="of a lesson's classifier or hybrid, or of `viralbert train`",
    )
    command.add_argument(
        "-o", "--output", required=True, type=_path, help="a new folder, or an export to replace"
    )
    command.add_argument(
        "--int8", action="store_true", help="a quarter of the size, two to three times as fast"
    )
    command.add_argument(
        "--layout",
        choices=("plain", "triton"),
        default="plain",
        help="triton: the output becomes a model's folder in the repository of a Triton server",
    )
    command.set_defaults(function=_export)


def _add_train(commands: Commands) -> None:
    command = commands.add_parser(
        "train",
        parents=[_device_options(), _labelled_options()],
        help="train, evaluate and save a classifier, resumable",
        **_example("viralbert train --dataset multitask --data mydata -o models/mine"),
    )
    command.add_argument(
        "--profile",
        help="trainings that come with viralbert, a folder each: viralbert-v2 (its published "
        "recipe), replicate (the emotion service's three models) or viralbert; other options go "
        "before what it says",
    )
    command.add_argument(
        "-o",
        "--output",
        required=True,
        type=_path,
        help="gets model/, metrics.json and history.csv",
    )
    command.add_argument("--encoder", help="embedded, a hub name or a folder")
    command.add_argument(
        "--dataset",
        help="cedr, combo (CEDR and GoEmotions), emotions (default), virality, multitask (28 "
        "emotions and virality), viralbert, reviews (bad, neutral, good) or grades (0-10)",
    )
    command.add_argument("--epochs", type=int)
    command.add_argument(
        "--frozen-epochs",
        type=int,
        help="so many of them train the heads alone, on an encoder that stays as it is",
    )
    command.add_argument(
        "--top-layers", type=int, help="of the encoder, that train after that; all without it"
    )
    command.add_argument(
        "--keep",
        choices=("best", "last", "both"),
        help="the epoch that becomes model/: the best on dev (default) or the last; both: the "
        "last as model-last/, too",
    )
    command.add_argument("--pooling", help="cls, mean (default), max, attention; also max+mean")
    command.add_argument(
        "--pos-weight",
        choices=("none", "clipped", "sqrt", "balanced", "power"),
        help="weight of rare classes in the loss; clipped: ViralBERT v2's, between 0.1 and 10",
    )
    command.add_argument(
        "--lr", type=float, dest="learning_rate", help="highest rate of the encoder"
    )
    command.add_argument(
        "--layer-share", type=float, help="that rate as a share of the heads' (0.1)"
    )
    command.add_argument(
        "--warmup",
        type=float,
        help="updates in which the rate rises; below 1: their share (0.1)",
    )
    command.add_argument("--scheduler", dest="schedule", choices=("cosine", "linear", "constant"))
    command.add_argument("--batch-size", type=int)
    command.add_argument("--max-length", type=int, help="tokens kept of a text")
    command.add_argument(
        "--export-onnx", action="store_true", default=None, help="the model as ONNX, too"
    )
    command.add_argument("--note", help="goes into metrics.json")
    command.set_defaults(function=_train)


def _add_evaluate(commands: Commands) -> None:
    command = commands.add_parser(
        "evaluate",
        parents=[_model_options(), _labelled_options()],
        help="precision, recall, F1 and ROC AUC of a model on labelled texts; nothing is trained",
        **_example("viralbert evaluate --model models/mine/model --data mydata"),
    )
    command.add_argument(
        "--dataset",
        help="the task to judge: cedr, emotions, virality, reviews or grades; all that the model "
        "has without it",
    )
    command.add_argument("-o", "--output", type=_path, help="a JSON file for the figures")
    command.set_defaults(function=_evaluate)


def _add_check_env(commands: Commands) -> None:
    command = commands.add_parser(
        "check-env", help="what is installed, what is missing, which device"
    )
    command.set_defaults(function=_check_environment)


def _add_translate(commands: Commands) -> None:
    command = commands.add_parser(
        "translate",
        help="translate English texts to Russian with a Marian model, resumable",
        **_example(
            "viralbert translate --hub google-research-datasets/go_emotions --output mydata"
        ),
    )
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--file", help="a CSV, TSV, Parquet, JSON or JSONL table with a column of English texts"
    )
    source.add_argument(
        "--hub",
        metavar="NAME",
        help="an English set of emotions to fetch, such as google-research-datasets/go_emotions, "
        "or a folder in the hub's format",
    )
    command.add_argument(
        "-o",
        "--output",
        required=True,
        type=_path,
        help="with --file: a CSV file that gets the same rows with a column ru_text; with --hub: a "
        "data folder that gets emotions/train.csv and the other splits",
    )
    command.add_argument("--column", help="with --file: the column of the texts; text if not given")
    command.add_argument(
        "--config", metavar="FORM", help="with --hub: the form of a set that has several"
    )
    command.add_argument("--model", default="Helsinki-NLP/opus-mt-en-ru", help="hub name or folder")
    command.add_argument("--batch-size", type=int, default=32)
    command.add_argument("--device", help="cpu, cuda, cuda:1 or mps; CUDA if there is one")
    command.set_defaults(function=_translate)


def _add_audit(commands: Commands) -> None:
    command = commands.add_parser(
        "audit",
        parents=[_model_options()],
        help="which labels of a table are wrong: suspects as a sheet for people, and their "
        "corrections back into the table",
        **_example("viralbert audit --file labels.csv --output suspects.csv"),
    )
    command.add_argument(
        "--file",
        required=True,
        help="a CSV, TSV, Parquet, JSON or JSONL table with the columns text and labels (or label)",
    )
    command.add_argument(
        "-o",
        "--output",
        required=True,
        type=_path,
        help="gets the suspects; with --corrections the corrected table",
    )
    command.add_argument(
        "--corrections",
        metavar="SHEET",
        help="suspects with the column corrected filled in: write the table with these labels",
    )
    command.add_argument("--column", default="text", help="of the texts")
    command.add_argument(
        "--task", default="", help="of the model, to which the labels belong; emotions if it has it"
    )
    command.add_argument("--count", type=int, help="suspects at most; 100 if not given")
    command.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="for a table that the model was trained on: the model does not judge, but N pairs of "
        "judges, each fitted on rows that they do not judge",
    )
    command.add_argument(
        "--encoder", help="behind the judges of --folds: embedded, a hub name or a folder"
    )
    command.add_argument(
        "--semicolons", action="store_true", help="between columns, for a Russian Excel"
    )
    command.set_defaults(function=_audit)


def _add_paraphrase(commands: Commands) -> None:
    command = commands.add_parser(
        "paraphrase",
        help="add training rows: a model says each text once more in other words, resumable",
        **_example(
            "viralbert paraphrase --file mydata/emotions/train.csv "
            "--output augmented/emotions/train.csv"
        ),
    )
    command.add_argument(
        "--file",
        required=True,
        help="a CSV, TSV, Parquet, JSON or JSONL table of training rows; evaluation tables beside "
        "it are read, so that no paraphrase comes near to them",
    )
    command.add_argument(
        "-o",
        "--output",
        required=True,
        type=_path,
        help="a CSV file that gets the same rows, then the paraphrases",
    )
    command.add_argument(
        "--column", help="the column of the texts; ru_text where it is there, else text"
    )
    command.add_argument(
        "--model", default="cointegrated/rut5-base-paraphraser", help="hub name or folder"
    )
    command.add_argument(
        "--copies", type=int, default=1, metavar="N", help="paraphrases asked for each text"
    )
    command.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="FILE",
        help="a further table of evaluation texts that paraphrases keep away from; can be repeated",
    )
    command.add_argument("--batch-size", type=int, default=32)
    command.add_argument("--device", help="cpu, cuda, cuda:1 or mps; CUDA if there is one")
    command.set_defaults(function=_paraphrase)


def _path(text: str) -> Path:
    try:
        return own_path(text)
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parts_of_data(text: str) -> tuple[str, ...]:
    """`dev,test` as a tuple; `trainings.Training` knows which there are."""
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise argparse.ArgumentTypeError(f"expected dev, test or both (dev,test), found {text!r}")
    return parts


def _model(options: argparse.Namespace, folder: str | None = None) -> str:
    """The folder that `--model` names, or that of the model which comes with the package."""
    if folder or (folder is None and options.model):
        return folder or options.model
    from viralbert.serving import shipped

    return str(shipped.folder(options.device, options.precision))


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
    encoders, sets = download(_course_run(options), folder)
    if not encoders and not sets:
        say(f"profile {options.profile!r} takes nothing from the hub")
        return
    say(f"there: encoders {', '.join(encoders) or 'none'}; data sets {', '.join(sets) or 'none'}")
    data = f" DATA={folder / 'data'}" if folder and sets else ""
    cache = f"HF_HUB_CACHE={(folder / 'hub').resolve()} " if folder and encoders else ""
    say(
        f"run without a network: {cache}HF_HUB_OFFLINE=1 make reports "
        f"PROFILE={options.profile}{data}"
    )


def _pretrain(options: argparse.Namespace) -> None:
    from viralbert_utils.base import devices
    from viralbert_utils.lessons import pretraining

    devices.choose(options.device, options.precision)
    plan = pretraining.Plan(n_steps=options.steps)
    sources = [pretraining.Source.parse(text) for text in options.source]
    accuracies = pretraining.run(sources, options.output, plan)
    say(", ".join(f"{name} {value:.4g}" for name, value in accuracies.items()))


def _predict(options: argparse.Namespace) -> int:
    if sum(map(bool, (options.texts, options.file, options.table))) != 1:
        raise DataError(
            "expected texts or --file, found both or neither: viralbert predict 'Кот сам открыл "
            "дверь.' (for a hybrid or a cascade, --table alone)"
        )
    if options.table and options.aim:
        raise DataError("--aim chooses thresholds for texts, and --table has none; leave one out")
    if options.label and not options.table:
        raise DataError("--label names a column of --table; give both, or leave it out")
    if options.table:
        return _predict_table(options)
    folder = _model(options)
    from viralbert.serving.predictor import Predictor

    # The answer lags behind by a window of texts; tee keeps them meanwhile.
    texts, shown = itertools.tee(options.texts or _lines(options.file))
    model = Predictor.load(folder, options.device, options.precision)
    if options.aim:
        model = model.for_aim(options.aim)
    try:
        for text, prediction in zip(shown, model.predict_iter(texts), strict=True):
            _print_json({"text": text} | prediction.as_dict())
        sys.stdout.flush()
    except BrokenPipeError:  # "| head" has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _print_json(line: dict[str, Any]) -> None:
    text = json.dumps(line, ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be printed
    print(UNPRINTABLE.sub(lambda match: json.dumps(match[0])[1:-1], text))


def _predict_table(options: argparse.Namespace) -> int:
    if not options.model:
        raise DataError(
            "--table needs --model with the folder of a hybrid or a cascade; lesson 07 leaves "
            "runs/sample/hybrid and runs/sample/cascade (viralbert run --only 07)"
        )
    from viralbert import table_answers
    from viralbert_utils.base import devices

    table = table_answers.read(options.table, options.label)
    devices.choose(options.device, options.precision)
    model = table_answers.load(options.model, options.device)
    answers = table_answers.answer(model, table, options.label or "label")
    for line in answers.lines:
        _print_json(line)
    sys.stdout.flush()
    for note in (*answers.notes, *table_answers.summary(answers)):
        complain(note, "predict")  # the standard output holds JSON lines and nothing else
    return 0


def _lines(file: str) -> Iterator[str]:
    """The texts of a table, of a `.txt` file or of a pipe, line by line where it can be."""
    from viralbert_utils.data.tables import FORMATS, encoding_of, read_table, undecodable

    path = own_path(file)
    # A pipe of the shell, such as /dev/fd/63, has no ending.
    if file != "-" and path.suffix.lower() in FORMATS:
        table = read_table(path)
        column = next((name for name in table if _is_named_text(str(name))), None)
        if column is None:
            raise DataError(f"{file}: no column 'text'; found {', '.join(map(str, table.columns))}")
        yield from table[column]
        return
    if path.is_file() and path.suffix.lower() != ".txt":
        raise DataError(
            f"{file}: {path.suffix or 'a file without an ending'} is not read; expected a table "
            "with a column 'text' "
            f"({', '.join(FORMATS)}) or .txt with one text a line: convert it, or pipe its lines "
            "to --file -"
        )
    number = 0
    try:
        with (
            nullcontext(getattr(sys.stdin, "buffer", sys.stdin))
            if file == "-"
            else opened(path) as source
        ):
            lines = source
            if isinstance(source, io.BufferedReader):
                lines = io.TextIOWrapper(source, encoding_of(source.peek()))
            for number, line in enumerate(lines, 1):
                text = line.lstrip("\ufeff").rstrip("\r\n")
                if number == 1 and _begins_a_table(text):
                    raise DataError(
                        f"{file}: expected a text a line, found what begins a table "
                        f"({text[:60]!r}); give it as a file "
                        f"with its ending ({', '.join(FORMATS)})"
                    )
                yield text
    except UnicodeDecodeError as error:
        raise undecodable(error, file, number + 1) from None
    except OSError as error:
        raise DataError(f"{file} could not be read after line {number}: {error}") from None


def _is_named_text(name: str) -> bool:
    return name.strip(' "').casefold() == "text"


def _begins_a_table(line: str) -> bool:
    """Whether a line is the header of a table with a column `text`, or the beginning of JSON."""
    columns = re.split("[,;|\t]", line)
    return re.match(r'\s*(?:\{\s*"|\[\s*[{"])', line) is not None or (
        len(columns) > 1 and any(map(_is_named_text, columns))
    )


def _check_moments(options: argparse.Namespace) -> None:
    """Refuse what does not go together before anything heavy is imported."""
    if not options.engine:
        return
    if len(options.files) != 1 or not options.files[0].is_dir() or options.video:
        raise DataError(
            "--engine works through one folder and cuts no video; call without it for files"
        )
    if options.device not in (None, "cpu"):
        raise DataError(
            "--engine computes on the CPU, a process for each processor, so that the files are "
            "the same everywhere; "
            f"found --device {options.device}: leave it out, or call without --engine"
        )


def _moments(options: argparse.Namespace) -> int:
    _check_moments(options)
    limits = Limits(options.min, options.max, n=options.count)
    from viralbert import archives
    from viralbert.moments import outputs
    from viralbert.serving.predictor import ViralBERT

    if options.engine:
        return _archive(options, limits)
    paths = list(dict.fromkeys(itertools.chain.from_iterable(map(_subtitle_files, options.files))))
    if options.video and len(paths) != 1:
        raise DataError(
            f"--video belongs to one subtitle file, found {len(paths)}; call once for each video"
        )
    model = ViralBERT.load(_model(options), options.device, options.precision)
    n_failed = 0
    for path, name in zip(paths, _own_names(paths), strict=True):
        folder = options.output / name
        try:
            video = str(options.video or "")
            selection, read = archives.process(
                path, folder, model.scores, limits, options.fps, options.otio, video
            )
            if options.video:
                outputs.cut(options.video, selection.moments, folder / "clips")
        except (DataError, OSError) as error:
            n_failed += 1
            complain(error if str(path) in str(error) else f"{path}: {error}")
            continue
        say(f"{path} -> {folder}: {selection.note}")
        for repair in read.repairs:
            say(f"  repaired: {repair}")
        print(*map(printable, _moment_rows(selection.moments)), sep="\n")
    if n_failed:
        complain(f"{n_failed} of {len(paths)} files failed, the others are written")
    return 1 if n_failed else 0


def _serve(options: argparse.Namespace) -> None:
    from viralbert.serving.limits import ServiceLimits
    from viralbert.serving.names import named

    limits, models = ServiceLimits.parse(options.limits), named(options.models)
    folders = {name: _model(options, folder) for name, folder in models.items()}
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


def _archive(options: argparse.Namespace, limits: Limits) -> int:
    from viralbert import archives

    model = (_model(options), options.precision)
    job = archives.ArchiveJob(
        options.files[0],
        options.output,
        partial(archives.load_scorer, *model),
        archives.model_digest(*model),
        limits,
        options.fps,
        options.otio,
    )
    outcome = archives.run(job, options.engine, options.workers, show_progress=sys.stderr.isatty())
    say(
        f"{counted(outcome.n_done, 'file')} done, {outcome.n_before} were complete before -> "
        f"{options.output}"
    )
    for file, error in outcome.failures.items():
        complain(error if file in error else f"{file}: {error}")
    if outcome.failures:
        complain(f"{counted(len(outcome.failures), 'file')} failed; the next run tries them again")
    return 1 if outcome.failures else 0


def _subtitle_files(path: Path) -> list[Path]:
    """The file, or those of a folder."""
    from viralbert.archives import subtitle_files

    if not path.is_dir():
        return [path]
    # A folder without any stays in the list, to be named like a file that cannot be read.
    return subtitle_files(path) or [path]


def _own_names(paths: Sequence[Path]) -> list[str]:
    """Find a folder name for each file, after its stem.

    A number is added where a name is taken; upper and lower case may be one.

    No name leads out of the folder that holds them all.
    """
    from viralbert.moments.outputs import folder_name

    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name = folder_name(path.stem)
        options = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        names.append(
            next(
                name for name in options if unicodedata.normalize("NFC", name).lower() not in taken
            )
        )
        taken.add(unicodedata.normalize("NFC", names[-1]).lower())
    return names


def _moment_rows(moments: Sequence[Moment]) -> Iterator[str]:
    """Rank, start, end, score and reasons, as wide as the terminal."""
    width = max(shutil.get_terminal_size((120, 24)).columns - 36, 20)
    if moments:
        yield f"{'rank':>6}  {'start':>9}  {'end':>9}  score  why"
    for m in moments:
        tenths = (round(10 * time) for time in (m.start, m.end))
        times = (f"{t // 36000}:{t // 600 % 60:02d}:{t // 10 % 60:02d}.{t % 10}" for t in tenths)
        # The first reason repeats the score, the second and third quote lines: what is short goes
        # first.
        why = textwrap.shorten(
            "; ".join([*m.reasons[3:], *m.reasons[1:2]]), width, placeholder=" …"
        )
        yield "  ".join([f"{m.rank:>6}", *(f"{time:>9}" for time in times), f"{m.score:5.2f}", why])


def _export(options: argparse.Namespace) -> None:
    from viralbert.serving.export import export

    exported = export(options.model, options.output, options.int8, layout=options.layout)
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file()) / 1e6
    off = exported.about["difference"]
    say(f"{options.output}: {size:.0f} MB; probabilities differ from torch's by {off:.1g} at most")


def _train(options: argparse.Namespace) -> None:
    from viralbert.trainings import Training, profile

    given = _given(options, Training)
    trainings = profile(options.profile, given) if options.profile else {"": Training(**given)}
    from viralbert import train
    from viralbert_utils.base import devices
    from viralbert_utils.training import processes

    devices.choose(options.device, options.precision)
    with processes.process_group():
        for name, training in trainings.items():
            result = train.run(training, options.output / name, sys.stderr.isatty())
            for task, splits in result.get("figures", {}).items():
                for split, systems in splits.items():
                    scores = ", ".join(
                        f"{s} {e['macro-F1']['value']:.3f} [{e['macro-F1']['low']:.3f}, "
                        f"{e['macro-F1']['high']:.3f}]"
                        for s, e in systems.items()
                    )
                    say(f"{options.output / name}: {task}, macro-F1 on {split}: {scores}")
            for note in result.get("notes", []):
                say(f"{options.output / name}: {note}")


def _evaluate(options: argparse.Namespace) -> None:
    options.model = _model(options)
    from viralbert import evaluate

    asked = evaluate.Evaluation(**_given(options, evaluate.Evaluation))
    result = evaluate.evaluate(asked, options.device, options.precision)
    if options.output:
        evaluate.write(result, options.output)
    for line in (*evaluate.lines(result), *result["notes"]):
        say(line)


def _given(options: argparse.Namespace, fields: Any) -> dict[str, Any]:
    """Those of a dataclass's fields that the command line names."""
    names = fields.__dataclass_fields__
    return {
        name: value for name, value in vars(options).items() if name in names and value is not None
    }


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


def _check_environment(options: argparse.Namespace) -> int:
    wrong = _count_different_packages()
    python = f"Python {sys.version.split()[0]}"
    try:
        from viralbert_utils.base.devices import describe

        print(f"[ok] {python}, torch {importlib.metadata.version('torch')}, device: {describe()}")
    except ModuleNotFoundError as error:
        print(
            f"[missing] {python} without {error.name}: here no model can be trained, and only "
            "exported ones can be used"
        )
        wrong += 1
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    print(
        f"[{'ok' if browser else 'optional'}] Chromium for the page tests: "
        f"{browser or 'not found, those tests skip'}"
    )
    return 1 if wrong else 0


def _translate(options: argparse.Namespace) -> None:
    other = {"--hub": options.column and "--column", "--file": options.config and "--config"}
    if unread := other["--hub" if options.hub else "--file"]:
        raise DataError(
            f"{unread} is not read with {'--hub' if options.hub else '--file'}; leave it out"
        )
    from viralbert import translation
    from viralbert_utils.base import devices

    devices.choose(options.device)
    if options.hub:
        written = translation.translate_hub(
            options.hub, options.output, options.model, options.batch_size, options.config
        )
        counts = {options.output / "emotions" / f"{name}.csv": n for name, n in written.items()}
    else:
        counts = {
            options.output: translation.translate_file(
                options.file,
                options.output,
                options.column or "text",
                options.model,
                options.batch_size,
            )
        }
    for target, (n_rows, n_failed) in counts.items():
        say(
            f"{counted(n_rows, 'row')} written to {target}, {n_failed} left without a "
            "translation (not written)"
        )


def _paraphrase(options: argparse.Namespace) -> None:
    from viralbert.paraphrasing import paraphrase_file
    from viralbert_utils.base import devices

    devices.choose(options.device)
    n_new, dropped = paraphrase_file(
        options.file,
        options.output,
        options.column,
        options.model,
        options.copies,
        options.against,
        options.batch_size,
    )
    left_out = ", ".join(f"{n} {reason}" for reason, n in dropped.items())
    say(f"{counted(n_new, 'paraphrase')} added in {options.output}; left out: {left_out}")


def _check_audit(options: argparse.Namespace) -> None:
    """Refuse what does not go together before anything heavy is imported."""
    judging = {"--count": options.count, "--folds": options.folds, "--encoder": options.encoder}
    given = [name for name, value in judging.items() if value is not None]
    if options.corrections and given:
        raise DataError(f"{given[0]} finds suspects, and --corrections takes them back; leave one")
    if options.encoder and options.folds is None:
        raise DataError("--encoder is read by the judges of --folds; give --folds 5, too")
    for name, least in (("--count", 1), ("--folds", 2)):
        value = judging[name]
        if value is not None and value < least:
            raise DataError(f"{name}: expected at least {least}, found {value}")
    read = [own_path(file) for file in (options.file, options.corrections) if file]
    if any(options.output.exists() and options.output.samefile(p) for p in read if p.exists()):
        raise DataError(f"{options.output} is read here; give --output another name")


def _audit(options: argparse.Namespace) -> None:
    _check_audit(options)
    folder = _model(options)
    from viralbert import audit
    from viralbert.serving.predictor import Predictor
    from viralbert_utils.base import devices

    model = Predictor.load(folder, options.device, options.precision)
    label_set = audit.LabelSet.of(model.tasks, options.task)
    data = audit.Labelled.read(options.file, label_set, options.column)
    separator = ";" if options.semicolons else ","
    if options.corrections:
        counts = audit.apply(data, options.corrections, options.output, separator)
        say(
            f"{options.output}: {counted(len(data.rows), 'row')}; of the sheet, "
            f"{counts['changed']} changed, {counts['confirmed']} confirmed, {counts['open']} not "
            "looked at"
        )
        return
    if options.folds:
        devices.choose(options.device, options.precision)
        probabilities = audit.by_folds(data, options.folds, options.encoder or "embedded")
        judge = (
            f"judged by {options.folds} pairs of judges, each fitted on rows that they do not "
            "judge; errors that follow a rule are learnt as a rule, and not found"
        )
    else:
        probabilities = audit.by_model(data, model)
        judge = (
            "judged by the model: wrong labels that it has learnt are not found, so if it was "
            "trained on these rows, use --folds 5"
        )
    n = audit.write_suspects(data, probabilities, options.output, options.count or 100, separator)
    say(
        f"{options.output}: {n} of {counted(len(data.rows), 'row')}, most suspicious first; {judge}"
    )
    named = {"model": options.model, "task": options.task, "file": options.file}
    if options.column != "text":
        named["column"] = options.column
    named |= {"corrections": str(options.output), "output": "corrected.csv"}
    line = " ".join(f"--{name} {shlex.quote(value)}" for name, value in named.items() if value)
    say(
        "write the right labels into the column corrected ([] for none, the given ones if they are "
        f"right), then: viralbert audit {line}"
    )


if __name__ == "__main__":
    sys.exit(main())
