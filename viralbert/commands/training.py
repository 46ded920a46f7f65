"""Training and judging: `viralbert train`, `evaluate`, `pretrain`."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from viralbert.commands.options import (
    device_options,
    example,
    file_path,
    labelled_options,
    model_options,
)
from viralbert.places import check_output
from viralbert.terminal import say, shown
from viralbert.trainings import KEEP, WEIGHTINGS, Training, profile
from viralbert_utils.base.errors import DataError

if TYPE_CHECKING:
    from viralbert.commands.options import Commands


def add_train(commands: Commands) -> None:
    """Add `viralbert train`."""
    command = commands.add_parser(
        "train",
        parents=[device_options(), labelled_options(Training.evaluate)],
        help="train, evaluate and save a classifier, resumable",
        **example("viralbert train --dataset multitask --data mydata -o models/mine"),
    )
    command.add_argument(
        "--profile",
        help="trainings that come with viralbert, a folder each: viralbert-v2 (its published "
        "recipe), replicate (the emotion service's three models) or viralbert; other options "
        "override what it says",
    )
    command.add_argument(
        "-o",
        "--output",
        required=True,
        type=file_path,
        help="gets model/, metrics.json and history.csv",
    )
    command.add_argument("--encoder", help="embedded (default), a hub name or a folder")
    command.add_argument(
        "--dataset",
        help="cedr, combo (CEDR and GoEmotions), emotions (default), virality, multitask (28 "
        "emotions and virality), viralbert, reviews (bad, neutral, good) or grades (0-10)",
    )
    command.add_argument("--epochs", type=int, help=f"passes over the texts ({Training.epochs})")
    command.add_argument(
        "--frozen-epochs",
        type=int,
        help="how many of the epochs train the heads alone, on an encoder that stays as it is (0)",
    )
    command.add_argument(
        "--top-layers",
        type=int,
        help="how many layers of the encoder train after that; all if not given",
    )
    command.add_argument(
        "--keep",
        choices=KEEP,
        help="the epoch that becomes model/: the best on dev (default) or the last; both: the "
        "last as model-last/, too",
    )
    command.add_argument("--pooling", help="cls, mean (default), max, attention; also max+mean")
    command.add_argument(
        "--pos-weight",
        choices=WEIGHTINGS,
        help="weight of rare classes in the loss; none (default); clipped: ViralBERT v2's, between "
        "0.1 and 10",
    )
    command.add_argument(
        "--lr",
        type=float,
        dest="learning_rate",
        help="highest rate of the encoder (embedded: 0.001, with --dataset viralbert 0.0005; "
        "others: 0.00002)",
    )
    command.add_argument(
        "--layer-share", type=float, help="the encoder's rate as a share of the heads' (0.1)"
    )
    command.add_argument(
        "--frozen-lr",
        type=float,
        dest="frozen_rate",
        help="highest rate of the heads in frozen epochs; if not given, the same as later",
    )
    command.add_argument(
        "--warmup",
        type=float,
        help="for how many updates the rate rises; below 1, a share of them; 0.1 if not given",
    )
    command.add_argument(
        "--scheduler",
        dest="schedule",
        choices=("cosine", "linear", "constant"),
        help=f"how the rate falls ({Training.schedule})",
    )
    command.add_argument(
        "--batch-size", type=int, help=f"texts in an update ({Training.batch_size})"
    )
    command.add_argument(
        "--max-length", type=int, help=f"tokens kept of a text ({Training.max_length})"
    )
    command.add_argument(
        "--export-onnx", action="store_true", default=None, help="save it as ONNX, too"
    )
    command.add_argument("--note", help="a text for metrics.json")
    command.set_defaults(function=_train)


def add_evaluate(commands: Commands) -> None:
    """Add `viralbert evaluate`."""
    command = commands.add_parser(
        "evaluate",
        parents=[model_options(), labelled_options(("test",))],
        help="precision, recall, F1 and ROC AUC of a model on labelled texts; nothing is trained",
        **example("viralbert evaluate --model models/mine/model --data mydata"),
    )
    command.add_argument(
        "--dataset",
        help="the task to judge: cedr, emotions, virality, reviews or grades; without it, "
        "all that the model has",
    )
    command.add_argument("-o", "--output", type=file_path, help="a JSON file for the figures")
    command.set_defaults(function=_evaluate)


def add_pretrain(commands: Commands) -> None:
    """Add `viralbert pretrain`."""
    command = commands.add_parser(
        "pretrain",
        parents=[device_options()],
        help="train the embedded encoder's layers, resumable",
        **example("viralbert pretrain --source texts.txt=1 --output layers --steps 7000"),
    )
    command.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="drama.txt.xz=0.2",
        help="a file of texts and its weight; tables as train.csv#column=0.1",
    )
    command.add_argument(
        "-o",
        "--output",
        required=True,
        type=file_path,
        help="folder for layers, history and checkpoint",
    )
    command.add_argument("--steps", type=int, default=7000, help="updates (7000)")
    command.set_defaults(function=_pretrain)


def _train(options: argparse.Namespace) -> None:
    check_output(options.output, folder=True)
    given = _given(options, Training)
    trainings = profile(options.profile, given) if options.profile else {"": Training(**given)}
    from viralbert import train
    from viralbert_utils.base import devices
    from viralbert_utils.training import processes

    devices.choose(options.device, options.precision)
    # At a terminal each epoch has a bar, elsewhere a line.
    has_bar = sys.stderr.isatty()
    with processes.process_group(), ExitStack() as stack:
        if not has_bar and not processes.rank():
            stack.enter_context(shown("viralbert.training"))
        for name, training in trainings.items():
            result = train.run(training, options.output / name, has_bar)
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
    if options.output:
        check_output(options.output, folder=False)
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


def _pretrain(options: argparse.Namespace) -> None:
    check_output(options.output, folder=True)
    from viralbert_utils.base import devices
    from viralbert_utils.lessons import pretraining

    plan = pretraining.Plan(n_steps=options.steps)
    sources = [pretraining.Source.parse(text) for text in options.source]
    for source in sources:  # before the encoder is built
        if not source.texts():
            raise DataError(f"{source.path}: expected a text a line, found none; write some")
    devices.choose(options.device, options.precision)
    accuracies = pretraining.run(sources, options.output, plan)
    say(", ".join(f"{name} {value:.4g}" for name, value in accuracies.items()))
