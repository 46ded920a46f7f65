"""What pretraining the embedded encoder's layers is worth, and which objective and shape serve
best.

    .venv/bin/python benchmarks/pretraining.py trial <corpus folder> <data folder> [row ...]
    .venv/bin/python benchmarks/pretraining.py downstream <data folder> [seeds] [file for the
    results]

`trial` pretrains each row for the same number of steps and asks what a linear head makes of the
frozen vectors. The corpus folder holds plain text, one piece a line. `downstream` compares the
shipped layers with layers that were never trained: frozen under a linear head, and fine-tuned with
the same budget, on emotions, CEDR and virality.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import emotions as task
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from viralbert_utils.base import tokens
from viralbert_utils.data import cleaning, emotions, splits
from viralbert_utils.data.sources import load
from viralbert_utils.encoders import loading
from viralbert_utils.encoders.embedded import embedded_folder
from viralbert_utils.encoders.recipe import Recipe
from viralbert_utils.evaluation import intervals, metrics, thresholds
from viralbert_utils.lessons import pretraining
from viralbert_utils.models import inference

WEIGHTS = {"literature": 0.15, "drama": 0.2, "joke_dialogues": 0.35, "telegram_posts": 0.1}
TRIAL_STEPS, TRIAL_TEXTS, N_TEXTS = 600, 20_000, 5_000


class Detection(pretraining.Objective):
    """Replaced-token detection (Clark et al. 2020) with the corpus' own neighbours in the place of
    a generator.

    A sixth of the tokens become another follower of the token before them; the model says of each
    token whether it was.
    """

    def __init__(self, encoder: object, plan: pretraining.Plan, corpus: pretraining.Corpus) -> None:
        """See `Objective`."""
        super().__init__(encoder, plan, corpus)
        size = self.encoder.config.hidden_size
        self.judge = nn.Linear(size, 1)
        self.bigrams = pretraining.Bigrams(corpus.sequences, self.encoder.config.vocab_size)

    def prepare(
        self, batch: np.ndarray, rng: np.random.Generator, mask_id: int
    ) -> tuple[Tensor, ...]:
        """Ids and positions; which tokens are no special ones, and which of them were exchanged."""
        known = batch > 4
        chosen = known & (rng.random(batch.shape) < 0.17)
        chosen[:, 0] = False
        previous = np.roll(batch, 1, axis=1)[chosen]
        starts, ends = self.bigrams.starts[previous], self.bigrams.starts[previous + 1]
        drawn = np.minimum(
            starts + (rng.random(len(starts)) * (ends - starts)).astype(np.int64), ends - 1
        )
        seen = batch.copy()
        seen[chosen] = self.bigrams.following[self.bigrams.order[drawn]]
        places = np.tile(np.arange(batch.shape[1]), (len(batch), 1))
        return tuple(
            map(torch.from_numpy, (seen, places, np.flatnonzero(known), (seen != batch)[known]))
        )

    def forward(
        self, ids: Tensor, places: Tensor, where: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy over all tokens but special ones, and the share of right answers."""
        hidden = self.encoder(input_ids=ids, position_ids=places).last_hidden_state.flatten(
            end_dim=1
        )[where]
        logits = self.judge(self.transform(hidden))[:, 0].float()
        right = ((logits > 0) == wanted).float().mean()
        return functional.binary_cross_entropy_with_logits(logits, wanted.float()), right


@dataclass(frozen=True)
class Row:
    """One trial: what is learnt, by which shape."""

    objective: type[pretraining.Objective] = pretraining.Objective
    n_layers: int = 2
    intermediate: int = 1200
    learning_rate: float = 1e-3
    n_steps: int = TRIAL_STEPS


ROWS = {
    "masked, 2 layers": Row(),
    "detection, 2 layers": Row(Detection),
    "masked, 3 layers": Row(n_layers=3),
    "masked, 2 layers, width 600": Row(intermediate=600),
    "masked, 2 layers, rate 5e-4": Row(learning_rate=5e-4),
    "not trained": Row(n_steps=0),
}


def linear_head(
    features: dict[str, Tensor],
    labels: dict[str, np.ndarray],
    penalties: tuple[float, ...] = (1e-5, 1e-4, 1e-3),
) -> dict[str, np.ndarray]:
    """Probabilities of a logistic regression on standardised features, for each part but `train`.

    Of the penalties, the one with the best mean ROC AUC on the tuning rows.
    """
    mean, spread = features["train"].mean(0), features["train"].std(0) + 1e-6
    standard = {name: (part - mean) / spread for name, part in features.items()}
    found = [_fit_head(standard, labels, penalty) for penalty in penalties]
    return max(found, key=lambda own: metrics.mean_roc_auc(labels["tune"], own["tune"]))


def _fit_head(
    x: dict[str, Tensor], labels: dict[str, np.ndarray], penalty: float
) -> dict[str, np.ndarray]:
    y = torch.from_numpy(labels["train"]).float()
    weights = torch.zeros(x["train"].shape[1], y.shape[1], requires_grad=True)
    bias = torch.logit(y.mean(0), eps=1e-4).requires_grad_()
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimiser.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(x["train"] @ weights + bias, y)
        loss = loss + penalty * weights.square().sum()
        loss.backward()
        return loss

    optimiser.step(step)
    with torch.no_grad():
        return {name: (x[name] @ weights + bias).sigmoid().numpy() for name in x if name != "train"}


class AllLayers(nn.Module):
    """An encoder that gives its word vectors and each layer's output side by side in the place of
    the last layer."""

    def __init__(self, encoder: nn.Module) -> None:
        """Wrap an encoder of transformers."""
        super().__init__()
        self.encoder, self.config = encoder, encoder.config

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        """`(n_texts, n_tokens, (layers + 1) x size)`, as the first of a tuple."""
        return (torch.cat(self.encoder(**inputs, output_hidden_states=True).hidden_states, -1),)


def frozen(tokenizer: object, encoder: nn.Module, rows: dict) -> dict[str, np.ndarray]:
    """Probabilities of the 28 emotions by a linear head over the mean vectors of an encoder that
    stays as it is."""
    encoded = {
        n: tokens.encode(tokenizer, list(table["text"]), task.MAX_LENGTH)
        for n, table in rows.items()
    }
    features = {n: inference.text_vectors(encoder, part, 0) for n, part in encoded.items()}
    return linear_head(
        features, {n: emotions.multi_hot(table["labels"]) for n, table in rows.items()}
    )


def score(found: dict[str, np.ndarray], rows: dict) -> tuple[str, str]:
    """Macro-F1 with shrunk thresholds and mean ROC AUC on the test rows, with intervals."""
    labels = {name: emotions.multi_hot(rows[name]["labels"]) for name in ("tune", "test")}
    decided = thresholds.decide(found["test"], thresholds.shrunk(labels["tune"], found["tune"]))
    f1 = intervals.macro_f1_interval(labels["test"], decided)
    return str(f1), str(intervals.bootstrap(metrics.mean_roc_auc, labels["test"], found["test"]))


def trial(corpus_folder: str, source: str, names: list[str]) -> None:
    """Pretrain each row and print what its frozen vectors are worth."""
    rows = task.load_rows(source)
    folder = embedded_folder(Recipe(pretrained=False))
    tokenizer = loading.load_tokenizer(str(folder))
    sources = [
        pretraining.Source(Path(corpus_folder) / f"{n}.txt.xz", (), w) for n, w in WEIGHTS.items()
    ]
    texts = {str(source.path): source.texts()[:TRIAL_TEXTS] for source in sources}
    packed = {name: pretraining.pack(tokenizer, part, 64) for name, part in texts.items()}
    corpus = pretraining.Corpus(packed, {str(source.path): source.weight for source in sources})
    print(
        "| trial | steps | seconds | last loss | macro-F1 | mean ROC AUC "
        "|\n|---|---|---|---|---|---|",
        flush=True,
    )
    for name in names or ROWS:
        row = ROWS[name]
        recipe = Recipe(n_layers=row.n_layers, intermediate=row.intermediate, pretrained=False)
        _, encoder = loading.load_encoder(str(embedded_folder(recipe)))
        seconds, loss = 0.0, float("nan")
        if row.n_steps:
            plan = pretraining.Plan(
                n_steps=row.n_steps, learning_rate=row.learning_rate, precision="bfloat16"
            )
            history, _ = pretraining.pretrain(
                encoder, tokenizer.mask_token_id, corpus, plan, objective=row.objective
            )
            seconds, loss = history["seconds"].iloc[-1], history["loss"].iloc[-1]
        cells = (
            name,
            str(row.n_steps),
            f"{seconds:.0f}",
            f"{loss:.3f}",
            *score(frozen(tokenizer, encoder.eval(), rows), rows),
        )
        print("| " + " | ".join(cells) + " |", flush=True)


def load_tasks(source: str) -> dict[str, tuple[dict, dict]]:
    """Rows and 0/1 labels of three tasks in training, tuning and test parts."""
    rows = task.load_rows(source)
    rows["train"] = rows["train"].sample(N_TEXTS, random_state=0)
    found = {
        "emotions": (
            rows,
            {name: emotions.multi_hot(table["labels"]) for name, table in rows.items()},
        )
    }
    shares = {"train": 0.7, "tune": 0.15, "test": 0.15}
    cedr = pd.concat(cleaning.clean(load("cedr", source), **cleaning.RULES["cedr"]).splits.values())
    cedr["labels"] = cedr["labels"].map(emotions.cedr_with_no_emotion)
    parts = splits.by_label(cedr.reset_index(drop=True), shares)
    found["cedr"] = (
        parts,
        {name: emotions.multi_hot(table["labels"], 6) for name, table in parts.items()},
    )
    virality = pd.concat(
        cleaning.clean(load("virality", source), **cleaning.RULES["virality"]).splits.values()
    )
    parts = splits.by_time(virality.reset_index(drop=True), "published_at", shares)
    found["virality"] = (
        parts,
        {name: table[["label"]].to_numpy(dtype=int) for name, table in parts.items()},
    )
    return found


def downstream(source: str, n_seeds: int, target: Path | None) -> None:
    """Pretrained against untrained layers: frozen under a linear head, and fine-tuned with the same
    budget."""
    folders = {
        "untrained": str(embedded_folder(Recipe(pretrained=False))),
        "pretrained": str(embedded_folder()),
    }
    results: list[dict] = []
    rows = task.load_rows(source)
    hot = {name: emotions.multi_hot(table["labels"]) for name, table in rows.items()}
    words = loading.load_encoder(str(embedded_folder(Recipe(n_layers=0, pretrained=False))))
    by_words = frozen(*words, rows)
    for what, wrap in (("last layer", lambda own: own), ("all layers", AllLayers)):
        outputs = {"word vectors": [by_words]}
        for name, folder in folders.items():
            tokenizer, encoder = loading.load_encoder(folder)
            outputs[name] = [frozen(tokenizer, wrap(encoder), rows)]
        compare(f"emotions, frozen, {what}", outputs, hot, results)
    tasks = load_tasks(source) if n_seeds else {}
    for name, (rows, hot) in tasks.items():
        runs: dict[str, list] = {}
        curves: dict[tuple[str, int], pd.DataFrame] = {}
        for layers, folder in folders.items():
            for seed in range(n_seeds):
                settings = replace(task.SETTINGS, epochs=3, seed=seed)
                found, history, seconds = task.train(folder, rows, settings, labels=hot)
                runs.setdefault(layers, []).append(found)
                curves[layers, seed] = history
                curve = ", ".join(f"{value:.3f}" for value in history["macro_f1"])
                print(
                    f"{name}, {layers}, seed {seed}: {seconds:.0f} s, macro-F1 by epoch {curve}",
                    flush=True,
                )
        for seed in range(n_seeds):
            aim = curves["untrained", seed]["macro_f1"]
            reached = np.flatnonzero(curves["pretrained", seed]["macro_f1"] >= aim.max())
            found = f"in epoch {reached[0] + 1}" if len(reached) else "never"
            print(
                f"  seed {seed}: untrained layers' best ({aim.max():.3f}, epoch "
                f"{aim.argmax() + 1}) reached {found}"
            )
        compare(f"{name}, fine-tuned", runs, hot, results)
    if target:
        target.write_text(
            json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def compare(
    what: str, runs: dict[str, list], hot: dict[str, np.ndarray], results: list[dict]
) -> None:
    """Print and keep macro-F1 (shrunk thresholds) and mean ROC AUC of each system, and the paired
    gain."""
    scores = {name: np.stack([found["test"] for found in own], -1) for name, own in runs.items()}
    decided = {
        name: np.stack(
            [
                thresholds.decide(found["test"], thresholds.shrunk(hot["tune"], found["tune"]))
                for found in own
            ],
            -1,
        )
        for name, own in runs.items()
    }
    for measure, metric, found in (
        ("mean ROC AUC", metrics.mean_roc_auc, scores),
        ("macro-F1", metrics.macro_f1, decided),
    ):
        over_runs = metrics.mean_over_runs(metric)
        own = {
            name: intervals.bootstrap(over_runs, hot["test"], values)
            for name, values in found.items()
        }
        gain = intervals.bootstrap(
            intervals.gain(over_runs), hot["test"], found["untrained"], found["pretrained"]
        )
        line = ", ".join(f"{name} {value}" for name, value in own.items())
        print(f"{what}, {measure}: {line}; gain over untrained {gain}", flush=True)
        if "word vectors" in found:
            both = found["word vectors"], found["pretrained"]
            print(
                "  over word vectors:",
                intervals.bootstrap(intervals.gain(over_runs), hot["test"], *both),
            )
        results.append(
            {
                "what": f"{what}, {measure}",
                **{n: vars(v) for n, v in own.items()},
                "gain": vars(gain),
            }
        )


if __name__ == "__main__":
    if sys.argv[1] == "trial":
        trial(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        n_seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
        downstream(sys.argv[2], n_seeds, Path(sys.argv[4]) if len(sys.argv) > 4 else None)
