"""Training data: `viralbert translate`, `paraphrase`, `audit`."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from viralbert.commands.options import example, file_path, model_folder, model_options
from viralbert.places import check_output
from viralbert.terminal import counted, say
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path

if TYPE_CHECKING:
    from viralbert.commands.options import Commands


def add_translate(commands: Commands) -> None:
    """Add `viralbert translate`."""
    command = commands.add_parser(
        "translate",
        help="translate English texts to Russian with a Marian model, resumable",
        **example("viralbert translate --hub google-research-datasets/go_emotions --output mydata"),
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
        type=file_path,
        help="with --file: a CSV file that gets the same rows with a column ru_text; with --hub: a "
        "data folder that gets emotions/train.csv and the other splits",
    )
    command.add_argument("--column", help="with --file: the column of the texts; text if not given")
    command.add_argument(
        "--config", metavar="FORM", help="with --hub: the form of a set that has several"
    )
    command.add_argument(
        "--model",
        default="Helsinki-NLP/opus-mt-en-ru",
        help="hub name or folder (Helsinki-NLP/opus-mt-en-ru)",
    )
    command.add_argument(
        "--batch-size", type=int, default=32, help="texts that the model reads at once (32)"
    )
    command.add_argument("--device", help="cpu, cuda, cuda:1 or mps; CUDA if there is one")
    command.set_defaults(function=_translate)


def add_paraphrase(commands: Commands) -> None:
    """Add `viralbert paraphrase`."""
    command = commands.add_parser(
        "paraphrase",
        help="add training rows: a model rephrases each text, resumable",
        **example(
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
        type=file_path,
        help="a CSV file that gets the same rows, then the paraphrases",
    )
    command.add_argument(
        "--column", help="the column of the texts; ru_text if there is one, else text"
    )
    command.add_argument(
        "--model",
        default="cointegrated/rut5-base-paraphraser",
        help="hub name or folder (cointegrated/rut5-base-paraphraser)",
    )
    command.add_argument(
        "--copies", type=int, default=1, metavar="N", help="paraphrases for each text (1)"
    )
    command.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="FILE",
        help="a further table of evaluation texts that paraphrases keep away from; can be repeated",
    )
    command.add_argument(
        "--batch-size", type=int, default=32, help="texts that the model reads at once (32)"
    )
    command.add_argument("--device", help="cpu, cuda, cuda:1 or mps; CUDA if there is one")
    command.set_defaults(function=_paraphrase)


def add_audit(commands: Commands) -> None:
    """Add `viralbert audit`."""
    command = commands.add_parser(
        "audit",
        parents=[model_options()],
        help="find wrong labels in a table: write suspects as a sheet for people, and apply their "
        "corrections",
        **example("viralbert audit --file labels.csv --output suspects.csv"),
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
        type=file_path,
        help="gets the suspects; with --corrections the corrected table",
    )
    command.add_argument(
        "--corrections",
        metavar="SHEET",
        help="suspects with the column corrected filled in: write the table with these labels",
    )
    command.add_argument("--column", default="text", help="the column of the texts (text)")
    command.add_argument(
        "--dataset",
        default="",
        help="the task of the model that the labels belong to; emotions if the model has it",
    )
    command.add_argument("--count", type=int, help="how many suspects at most; 100 if not given")
    command.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="for a table that the model was trained on: N pairs of judges take the model's place, "
        "each fitted on other rows than those that it judges",
    )
    command.add_argument(
        "--encoder",
        help="the encoder of the judges of --folds: embedded (default), a hub name or a folder",
    )
    command.add_argument(
        "--semicolons",
        action="store_true",
        help="put semicolons between columns, for a Russian Excel",
    )
    command.set_defaults(function=_audit)


def _translate(options: argparse.Namespace) -> None:
    other = {"--hub": options.column and "--column", "--file": options.config and "--config"}
    if unread := other["--hub" if options.hub else "--file"]:
        raise DataError(
            f"{unread} is not read with {'--hub' if options.hub else '--file'}; leave it out"
        )
    check_output(options.output, folder=bool(options.hub))
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
    check_output(options.output, folder=False)
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
        raise DataError(f"{given[0]} finds suspects, --corrections corrects them; leave one out")
    if options.encoder and options.folds is None:
        raise DataError("--encoder is read by the judges of --folds; give --folds 5, too")
    for name, least in (("--count", 1), ("--folds", 2)):
        value = judging[name]
        if value is not None and value < least:
            raise DataError(f"{name}: expected at least {least}, found {value}")
    check_output(options.output, folder=False)
    read = [own_path(file) for file in (options.file, options.corrections) if file]
    if any(options.output.exists() and options.output.samefile(p) for p in read if p.exists()):
        raise DataError(f"{options.output} is read here; give --output another name")


def _audit(options: argparse.Namespace) -> None:
    _check_audit(options)
    from viralbert import audit
    from viralbert.serving.predictor import Predictor
    from viralbert_utils.base import devices

    # Files come first: a model may have to be built.
    table = audit.read_labels(options.file, options.column)
    if options.corrections:
        audit.check_sheet(options.corrections)
    else:
        audit.check_new(options.output)
    model = Predictor.load(model_folder(options), options.device, options.precision)
    label_set = audit.LabelSet.of(model.tasks, options.dataset)
    data = audit.Labelled.of(table, options.file, label_set, options.column)
    separator = ";" if options.semicolons else ","
    if options.corrections:
        counts = audit.apply(
            data, options.corrections, options.output, separator, audit.line_end(options.file)
        )
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
    named = {"model": options.model, "dataset": options.dataset, "file": options.file}
    if options.column != "text":
        named["column"] = options.column
    named |= {"corrections": str(options.output), "output": "corrected.csv"}
    line = " ".join(f"--{name} {shlex.quote(value)}" for name, value in named.items() if value)
    line += " --semicolons" if options.semicolons else ""
    say(
        "write the right labels into the column corrected ([] for none, the given ones if they are "
        f"right), then: viralbert audit {line}"
    )
