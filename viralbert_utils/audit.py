"""Which labels are wrong? Known errors planted, rows ranked by suspicion, corrections by a human taken back.

Lesson 08 derives it. In every score *large is suspicious*; probabilities are out of fold, since a model that has seen a
wrong label may have learnt it. Sources: Northcutt, Jiang & Chuang 2021 (confident learning, arXiv 1911.00068),
Thyagarajan et al. 2022 (its form for several labels, arXiv 2211.13895), Toneva et al. 2019 (forgetting, arXiv
1812.05159), Pleiss et al. 2020 (margins over epochs, arXiv 2001.10528), Menon et al. 2021 (logit adjustment, arXiv
2007.07314).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api.types import is_numeric_dtype
from scipy.special import logit
from scipy.stats import rankdata
from torch import Tensor, nn

from viralbert_utils import devices, encoders, evaluation, thresholds, tokens
from viralbert_utils.data import read_table, require_columns
from viralbert_utils.emotions import EMOTIONS, parse_labels
from viralbert_utils.files import DataError, own_path, write_whole
from viralbert_utils.texts import INVISIBLE, normalise

KINDS = ("flip", "missing", "swap")
# Pairs that annotators confuse: GoEmotions' neighbours, and those of CEDR's classes.
NEIGHBOURS = (
    ("annoyance", "anger"), ("annoyance", "disapproval"), ("sadness", "disappointment"), ("sadness", "grief"),
    ("fear", "nervousness"), ("joy", "excitement"), ("admiration", "approval"), ("admiration", "love"),
    ("surprise", "realization"), ("confusion", "curiosity"), ("embarrassment", "remorse"), ("desire", "optimism"),
)  # fmt: skip
CEDR_NEIGHBOURS = (("joy", "surprise"), ("sadness", "fear"), ("sadness", "anger"), ("fear", "anger"))

# From positions of training and of other rows to probabilities of the others `(n_others, n_classes)`.
FitPredict = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Planted:
    """Labels with known errors.

    Attributes:
        labels: `(n_texts, n_classes)`, 0/1, errors included.
        cells: `(n_texts, n_classes)`, true where a label differs from the original.
        kinds: `(n_texts,)`, one of `KINDS`, empty for untouched rows.
    """

    labels: np.ndarray
    cells: np.ndarray
    kinds: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """`(n_texts,)`, 1 for rows with an error."""
        return np.asarray(self.cells.any(axis=1), dtype=np.int8)


def plant(
    labels: np.ndarray, share: float, kinds: Sequence[str] = KINDS, neighbours: Sequence[tuple[int, int]] = (),
    nothing: int | None = None, seed: int = 0,
) -> Planted:  # fmt: skip
    """One error in each of a share of the rows, in equal parts of each kind.

    Args:
        labels: `(n_texts, n_classes)`, 0/1; not changed.
        share: Of the rows.
        kinds: `flip` puts another class, at random, in the place of one of the row's; `swap` does so with a neighbour;
            `missing` takes one away.
        neighbours: Pairs of class ids for `swap`.
        nothing: Class that says that no other is there (neutral): a row that loses its only label gets it, and it is
            never put beside others.
        seed: Another seed gives other errors.

    Raises:
        DataError: An unknown kind, or too few rows that can have such an error.
    """
    if unknown := set(kinds) - set(KINDS):
        raise DataError(f"unknown kind of error {unknown.pop()!r}; use {', '.join(KINDS)}")
    rng = np.random.default_rng(seed)
    planted, kind_of = labels.copy(), np.full(len(labels), "", dtype=object)
    near = {*neighbours, *((b, a) for a, b in neighbours)}
    bounds = np.linspace(0, round(share * len(labels)), len(kinds) + 1).round().astype(int)
    # Swaps first, flips last: the former have fewer rows to choose from.
    for kind, wanted in sorted(zip(kinds, np.diff(bounds), strict=True), reverse=True):
        left = wanted
        for row in rng.permutation(np.flatnonzero(kind_of == "")):
            if not left:
                break
            changes = _changes(labels[row], kind, near, nothing)
            if changes:
                old, new = changes[rng.integers(len(changes))]
                planted[row, old] = 0
                if new is not None:
                    planted[row, new] = 1
                kind_of[row], left = kind, left - 1
        if left:
            raise DataError(f"{wanted} rows were to get the error {kind!r}, but {left} too few can; plant fewer")
    return Planted(planted, planted != labels, kind_of)


def _changes(row: np.ndarray, kind: str, near: set[tuple[int, int]], nothing: int | None) -> list:
    """Pairs of a label that goes and one that comes (or `None`)."""
    own, others = np.flatnonzero(row), np.flatnonzero(row == 0)
    if kind == "missing":
        return [(old, nothing if len(own) == 1 else None) for old in own if old != nothing]
    pairs = product(own, (new for new in others if new != nothing or len(own) == 1))
    return [(old, new) for old, new in pairs if kind == "flip" or (old, new) in near]


@torch.no_grad()
def layer_vectors(tokenizer: Any, encoder: Any, texts: Sequence[str], max_length: int = 64) -> Tensor:
    """Word vectors and all layers of an encoder, each averaged over a text's tokens, side by side.

    Args:
        tokenizer: From `encoders.load_encoder`.
        encoder: Likewise; in evaluation mode.
        texts: Any strings.
        max_length: Tokens; longer texts are cut.

    Returns:
        `(n_texts, (n_layers + 1) * hidden_size)`, on the CPU; the last layer stands last.
    """
    device = devices.of(encoder)
    ids = encoders.encode(tokenizer, list(texts), max_length)
    found = torch.empty(len(ids), (encoder.config.num_hidden_layers + 1) * encoder.config.hidden_size)
    plan = tokens.batches([len(row) for row in ids])
    prepare = (partial(encoders.pad, [ids[i] for i in some], tokenizer.pad_token_id) for some in plan)
    with devices.computing(device, devices.precision(device)):
        for some, (batch, mask) in zip(plan, devices.ahead(prepare, device), strict=True):
            seen = encoders.mask_for(encoder, mask)
            layers = encoder(batch, attention_mask=seen, output_hidden_states=True).hidden_states
            found[some] = torch.cat([encoders.pool(hidden, mask, "mean") for hidden in layers], dim=1).float().cpu()
    return found


def out_of_fold(fit_predict: FitPredict, labels: np.ndarray, n_folds: int = 5, seed: int = 0) -> np.ndarray:
    """Probabilities of each row by a model that was fitted without it, `(n_texts, n_classes)`.

    Args:
        fit_predict: Fits on the rows at some positions, and gives the probabilities of the rows at others.
        labels: `(n_texts, n_classes)`, 0/1; rows are dealt out by their rarest label, so that every fold has its share.
        n_folds: Models that are fitted.
        seed: Another seed deals otherwise.
    """
    fold = thresholds.folds(labels, n_folds, seed)
    found = np.empty(labels.shape)
    for k in range(n_folds):
        found[fold == k] = fit_predict(np.flatnonzero(fold != k), np.flatnonzero(fold == k))
    return found


def head_history(
    vectors: Tensor, labels: np.ndarray, others: Tensor, n_epochs: int = 15, dropout: float = 0.0,
    train_mode: bool = True, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """What a linear head over an encoder's frozen vectors thinks of other texts after each epoch.

    Seconds for some thousand texts, so that cross-validation and over-fitting cost nothing. It computes on the CPU: a
    GPU would not be faster at steps this small.

    Args:
        vectors: `(n_texts, size)`, to learn from; standardised here.
        labels: `(n_texts, n_classes)`, 0/1.
        others: `(n_others, size)`; the same vectors, to watch training rows.
        n_epochs: Passes over the texts, in batches of 64.
        dropout: Of the vectors.
        train_mode: False forgets `head.train()`: then there is no dropout, and no error says so.
        seed: Of order and dropout.

    Returns:
        Probabilities `(n_epochs, n_others, n_classes)`.
    """
    mean, spread = vectors.mean(dim=0), vectors.std(dim=0) + 1e-6
    x, watched = (vectors - mean) / spread, (others - mean) / spread
    y = torch.from_numpy(labels).float()
    history = []
    with torch.random.fork_rng(devices=[]), _one_core():
        torch.manual_seed(seed)
        linear = nn.Linear(x.shape[1], y.shape[1])
        nn.init.zeros_(linear.weight)
        linear.bias.data = torch.logit(y.mean(dim=0), eps=1e-3)
        head = nn.Sequential(nn.Dropout(dropout), linear)
        optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.01, fused=True)
        for _ in range(n_epochs):
            head.train(train_mode)
            for batch in torch.randperm(len(x)).split(64):
                optimiser.zero_grad()
                nn.functional.binary_cross_entropy_with_logits(head(x[batch]), y[batch]).backward()
                optimiser.step()
            head.eval()
            with torch.no_grad():
                history.append(head(watched).sigmoid().double().numpy())
    return np.stack(history)


@contextmanager
def _one_core() -> Iterator[None]:
    """Steps this small take several cores longer than one: they wait for each other, and beside other work for long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def self_confidence(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Probability of each given answer, yes or no, `(n_texts, n_classes)`; small is suspicious, here alone.

    Of one yes or no, the loss `-log(p)` and the normalised margin `(p - (1 - p) + 1) / 2` order like it: three names,
    one order. They part only where the cells of a row become one number.
    """
    return np.where(labels > 0, probabilities, 1 - probabilities)


def loss(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Binary cross-entropy of each row, summed over the classes `(n_texts,)`: the plain ranking."""
    return -np.log(self_confidence(labels, probabilities).clip(1e-6)).sum(axis=1)


def margin(labels: np.ndarray, probabilities: np.ndarray, adjust: float = 0.5) -> np.ndarray:
    """How far the best class that is not given lies above the worst that is, in logits, `(n_texts,)`.

    Rare classes have low probabilities, right or wrong. So `adjust` times the logit of each class's rate is taken away:
    with 0 plain logits are compared, with 1 only what the text adds to what the rates alone say. In the middle both
    count: that many labels of a rare class are wrong is as improbable as the class.

    Args:
        labels: `(n_texts, n_classes)`, 0/1. A row without labels, or with all, has one half on the side that is empty.
        probabilities: Same shape, out of fold.
        adjust: 0 to 1.
    """
    support = _support(labels, probabilities, adjust)
    best = np.where(labels > 0, -np.inf, support).max(axis=1)
    worst = np.where(labels > 0, support, np.inf).min(axis=1)
    return np.where(np.isinf(best), 0, best) - np.where(np.isinf(worst), 0, worst)


def _support(labels: np.ndarray, probabilities: np.ndarray, adjust: float) -> np.ndarray:
    rates = (labels.sum(axis=0) + 1) / (len(labels) + 2)
    return logit(probabilities.clip(1e-4, 1 - 1e-4)) - adjust * logit(rates)


def confident_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """For each class the mean self-confidence of its no and of its yes, `(n_classes, 2)` (Northcutt et al., eq. 2).

    A text counts as a sure yes if it has at least the probability that texts with the label have on average.
    """
    confidence = self_confidence(labels, probabilities)
    sides = [1 - labels, labels]
    return np.stack([(confidence * own).sum(axis=0) / np.maximum(own.sum(axis=0), 1) for own in sides], axis=1)


def sure_answers(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """What the model is sure of, `(n_texts, n_classes)`: 1 yes, 0 no, -1 neither; the likelier one of both."""
    bars = confident_thresholds(labels, probabilities) - 1e-6
    no, yes = 1 - probabilities >= bars[:, 0], probabilities >= bars[:, 1]
    return np.where(yes & (~no | (probabilities > 0.5)), 1, np.where(no, 0, -1))


def confident_joint(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Estimated shares of texts by given (first axis) and true answer, `(n_classes, 2, 2)`, each class adding up to 1.

    Sure answers are counted beside the given ones; each row of counts is then scaled to the number of texts that were
    given this answer (Northcutt et al., eq. 3). Off the diagonal stand the labels that are there by mistake `[1, 0]`
    and those that are missing `[0, 1]`.
    """
    sure = sure_answers(labels, probabilities)
    counts = np.array([[((labels == i) & (sure == j)).sum(axis=0) for j in (0, 1)] for i in (0, 1)], dtype=float)
    for i in (0, 1):
        counts[i, i] = counts[i, i].clip(1)
    given = np.stack([(labels == i).sum(axis=0) for i in (0, 1)])
    return np.moveaxis(counts / counts.sum(axis=1, keepdims=True) * given[:, None] / len(labels), 2, 0)


def confident_suspicion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Confident learning as a ranking `(n_texts,)`: the largest shortfall of a given answer behind its threshold."""
    bars = confident_thresholds(labels, probabilities)
    return (np.where(labels > 0, bars[:, 1], bars[:, 0]) - self_confidence(labels, probabilities)).max(axis=1)


def forgetting(labels: np.ndarray, history: np.ndarray) -> np.ndarray:
    """How often a training row was right after one epoch and wrong after the next, `(n_texts,)`.

    Right means that its labels stand above all others (plain `margin` below zero). A row that was never right counts
    one more than any that was: `n_epochs`.

    Args:
        labels: `(n_texts, n_classes)`, those that were trained on.
        history: Probabilities after each epoch `(n_epochs, n_texts, n_classes)`.
    """
    right = np.stack([margin(labels, epoch, adjust=0) < 0 for epoch in history])
    return np.where(right.any(axis=0), (right[:-1] & ~right[1:]).sum(axis=0), len(history))


def mean_margin(labels: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Mean over the epochs of each training row's `margin` `(n_texts,)`; arguments as in `forgetting`."""
    return np.mean([margin(labels, epoch) for epoch in history], axis=0)


def combined(*scores: np.ndarray) -> np.ndarray:
    """Mean rank of each row in several rankings, as a share of the rows `(n_texts,)`."""
    return np.mean([rankdata(score) / len(score) for score in scores], axis=0)


def precision_at(k: int, wrong: np.ndarray, score: np.ndarray) -> float:
    """Share of wrong rows among the `k` most suspicious; of equal scores at the border, the expected share."""
    limit = np.sort(score)[-min(k, len(score))]
    above, equal = score > limit, score == limit
    left = min(k, len(score)) - above.sum()
    return float((wrong[above].sum() + left * wrong[equal].mean()) / min(k, len(score)))


def average_precision(wrong: np.ndarray, score: np.ndarray) -> float:
    """Mean of the precision at each wrong row; an order by chance has the share of wrong rows. Ties count together."""
    return float(_average_precision(wrong, score, np.ones((1, len(wrong))))[0])


def compare_rankings(
    wrong: np.ndarray, scores: Mapping[str, np.ndarray], reference: str, k: int = 100, n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Average precision of several rankings of the same rows, and how each differs from one of them.

    Args:
        wrong: `(n_texts,)`, 1 for rows whose label is wrong.
        scores: Name -> suspicion `(n_texts,)`.
        reference: The ranking that the others are compared with, paired (bootstrap over rows).
        k: Of the precision at k.
        n_resamples: Of the intervals.
        seed: Of the intervals.

    Returns:
        A row a ranking with `average precision`, `low`, `high`, `gain`, `gain low`, `gain high` (over the reference),
        `times chance` and `precision at k`.

    Raises:
        DataError: No row is wrong, or all are: no order is better than another.
    """
    if not 0 < wrong.sum() < len(wrong):
        raise DataError(f"{wrong.sum()} of {len(wrong)} rows are wrong; a ranking needs both kinds")
    weights = evaluation.resample_weights(len(wrong), n_resamples, seed)
    resampled = {name: _average_precision(wrong, score, weights) for name, score in scores.items()}
    values = {name: average_precision(wrong, score) for name, score in scores.items()}
    rows = {}
    for name, value in values.items():
        own = evaluation.estimate(value, resampled[name], 0.95)
        gain = evaluation.estimate(value - values[reference], resampled[name] - resampled[reference], 0.95)
        at_k = precision_at(k, wrong, scores[name])
        rows[name] = [*vars(own).values(), *vars(gain).values(), value / wrong.mean(), at_k]
    columns = ["average precision", "low", "high", "gain", "gain low", "gain high", "times chance", "precision at k"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _average_precision(wrong: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each row of weights `(n_resamples, n_texts)`: one sort serves all resamples."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    seen = weights[:, order]
    hits, all_ = np.cumsum(seen * wrong[order], axis=1)[:, ends], np.cumsum(seen, axis=1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0) / np.maximum(hits[:, -1:], 1)
    return (gained * hits / np.maximum(all_, 1)).sum(axis=1)


def suspects(
    rows: pd.DataFrame, labels: np.ndarray, probabilities: np.ndarray, score: np.ndarray,
    names: Sequence[str] = EMOTIONS, n: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The most suspicious rows, for a human to look at.

    Args:
        rows: `id` and `text`.
        labels: The given ones `(n_texts, n_classes)`, 0/1.
        probabilities: Out of fold, same shape.
        score: `(n_texts,)`, large is suspicious.
        names: The classes, in the order of the columns.
        n: How many; all unless given.

    Returns:
        `id`, `text`, `given`, `likely` (labels above shrunk thresholds, at least one; names joined by commas),
        `doubtful` (the given label with the least support, for a list per class), `score`, `reason`; worst first.

    Raises:
        DataError: A column is missing.
    """
    require_columns(rows, ["id", "text"])
    support = _support(labels, probabilities, 0.5)
    likely = thresholds.decide(probabilities, thresholds.shrunk(labels, probabilities))
    likely[np.arange(len(labels)), support.argmax(axis=1)] |= ~likely.any(axis=1)
    usual = confident_thresholds(labels, probabilities)[:, 1]
    found = []
    for row in np.argsort(-score, kind="stable")[:n]:
        given = np.flatnonzero(labels[row])
        own = int(given[support[row, given].argmin()]) if len(given) else None
        other = int(np.where(labels[row] > 0, -np.inf, support[row]).argmax())
        shown = [("given", own)] if own is not None else []
        shown += [("not given", other)] if not labels[row].all() else []
        reason = "; ".join(
            f"{names[int(k)]} {side}, probability {probabilities[row, k]:.2f} (usual with the label: {usual[k]:.2f})"
            for side, k in shown
        )
        found.append(
            {"id": rows["id"].iloc[row], "text": rows["text"].iloc[row], "given": _spell(labels[row], names),
             "likely": _spell(likely[row], names), "doubtful": "" if own is None else names[own],
             "score": float(score[row]), "reason": reason}
        )  # fmt: skip
    return pd.DataFrame(found)


def _spell(row: np.ndarray, names: Sequence[str]) -> str:
    return ", ".join(names[int(k)] for k in np.flatnonzero(row)) or "[]"


# A spreadsheet takes what begins like a formula for one, also behind what it does not show; a space before it makes it
# a text again. A cell may begin inside a text: Russian spreadsheets read semicolons and line breaks as its borders.
_FORMULA = re.compile(f"(?<![^;,|\"'\t\r\n{INVISIBLE}])(?=[=+@＝＋－＠-])")


def _as_compared(cell: object) -> str:
    """What `write_sheet` and a spreadsheet leave as it was: all but white space and invisible characters."""
    return "".join(normalise(str(cell)).split())


def write_sheet(found: pd.DataFrame, path: Path | str) -> None:
    """Suspects as CSV with an empty column `corrected`, for a spreadsheet.

    Who corrects writes the right labels there: names (English or Russian) or ids, several joined by commas, `[]` for
    none, the given ones again if they are right. Empty means not looked at.

    Raises:
        DataError: There is no column `text`.
    """
    require_columns(found, ["text"])
    sheet = found.assign(corrected="")
    for column in sheet:
        if not is_numeric_dtype(sheet[column]):
            sheet[column] = [_FORMULA.sub(" ", str(cell)) for cell in sheet[column]]
    content = sheet.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)  # a line break may be a CR alone
    # With the byte order mark spreadsheets know UTF-8.
    write_whole(own_path(path), "\ufeff" + content)


def read_corrections(
    path: Path | str, table: pd.DataFrame, names: Sequence[str] = EMOTIONS
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Take corrections from a sheet back into a table; rows without one keep their labels.

    Args:
        path: As `write_sheet` wrote it, `corrected` filled in for some rows, other columns changed or not.
        table: `id`, `text`, `labels` (lists of ids); not changed.
        names: The label set.

    Returns:
        The table with corrected labels, and how many rows were `changed`, `confirmed` and left `open`.

    Raises:
        DataError: A column is missing, an id that the table lacks or has twice, another text under an id, labels that
            are not in the set, or two corrections of one id that differ; the message names the row.
    """
    require_columns(table, ["id", "text", "labels"])
    sheet = read_table(own_path(path))
    if missing := {"id", "text", "corrected"} - set(sheet.columns):
        raise DataError(
            f"{path}: column {min(missing)!r} is missing; found {', '.join(map(str, sheet.columns))}. Keep the "
            "columns of the sheet, and save it as CSV with commas or semicolons, UTF-8"
        )
    ids = [_as_compared(value) for value in table["id"]]
    if len(set(ids)) < len(ids):
        raise DataError("an id stands twice in the table; corrections cannot be told apart")
    place = {name: position for position, name in enumerate(ids)}
    labels, corrected = list(table["labels"]), dict[str, tuple[int, list[int]]]()
    sheet = sheet.assign(id=[_as_compared(value) for value in sheet["id"]])
    for row, (name, text, field) in enumerate(sheet[["id", "text", "corrected"]].itertuples(index=False)):
        where = f"{path}, row {row}"
        if name not in place:
            raise DataError(f"{where}: id {name!r} is not in the table; keep the column id as it was")
        if _as_compared(text) != _as_compared(table["text"].iloc[place[name]]):
            raise DataError(f"{where}: the text is not that of id {name!r}; sort whole rows, never one column alone")
        if not normalise(field):
            continue
        try:
            found = parse_labels(field, names)
        except ValueError as error:
            raise DataError(f"{where}: corrected={field!r}: {error}; known: {', '.join(names)}") from None
        if outside := [label for label in found if not 0 <= label < len(names)]:
            raise DataError(f"{where}: label id {outside[0]} is outside 0..{len(names) - 1}")
        earlier, same = corrected.setdefault(name, (row, found))
        if same != found:
            raise DataError(f"{where}: id {name!r} was corrected otherwise in row {earlier}; keep one of them")
    changed = [name for name, (_, found) in corrected.items() if sorted(labels[place[name]]) != found]
    for name in changed:
        labels[place[name]] = corrected[name][1]
    counts = {"changed": len(changed), "confirmed": len(corrected) - len(changed)}
    counts["open"] = sheet["id"].nunique() - len(corrected)
    return table.assign(labels=pd.Series(labels, table.index, dtype=object)), counts
