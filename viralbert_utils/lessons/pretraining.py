"""Pretraining of the embedded encoder's layers on plain text: hidden words are guessed from those
around them.

The word vectors stay as they are; position vectors and layers learn. Everything random depends on
the seed and the number of the step alone, so a run can stop anywhere and go on. Lesson 10 derives
it. Sources: Devlin et al. 2019 (masked words), Liu et al. 2019 (packing, masks drawn anew each
time).
"""

from __future__ import annotations

import json
import lzma
import math
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from viralbert_utils.base import devices
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import (
    check_plain,
    check_there,
    locked,
    own_path,
    sha256,
    write_whole,
)
from viralbert_utils.base.tokens import own_ids
from viralbert_utils.data.tables import read_table, require_columns
from viralbert_utils.encoders.embedded import embedded_folder, trained_layers
from viralbert_utils.encoders.loading import load_encoder
from viralbert_utils.encoders.recipe import LAYERS, Recipe
from viralbert_utils.evaluation.intervals import Estimate, bootstrap
from viralbert_utils.training.checkpoints import read_checkpoint, write_checkpoint
from viralbert_utils.training.settings import cosine_with_warmup

ROWS_PER_CHECKPOINT = 10


@dataclass(frozen=True)
class Plan:
    """How to pretrain.

    Attributes:
        n_steps: Updates.
        batch_size: Sequences an update.
        learning_rate: Highest rate.
        weight_decay: Decay of matrices; vectors have none.
        warmup: Share of the steps in which the rate rises.
        share: Share of the tokens that are hidden.
        n_targets: Tokens that can be asked for, the most frequent ones of the corpus.
        seed: Decides on sequences, masks and dropout.
        precision: See `devices.precision`; bfloat16 is twice as fast on a CPU that has it, slower
            on one that has not.
    """

    n_steps: int = 7000
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    share: float = 0.2
    n_targets: int = 10_000
    seed: int = 0
    precision: str = "auto"


def pack(tokenizer: Any, texts: Sequence[str], length: int = 64) -> np.ndarray:
    """Texts one after another, cut into sequences of equal length, so that no token is padding.

    Each sequence starts with the first special token; a separator follows each text; the rest at
    the end is dropped.

    Returns:
        `(n_sequences, length)`, int32.

    Raises:
        ValueError: The texts do not fill one sequence.
    """
    first, separator = tokenizer.cls_token_id, tokenizer.sep_token_id
    stream: list[np.ndarray] = []
    for start in range(0, len(texts), 10_000):
        rows = own_ids(tokenizer, texts[start : start + 10_000])
        stream.append(np.fromiter((i for ids in rows for i in (*ids, separator)), dtype=np.int32))
    tokens = np.concatenate(stream) if stream else np.empty(0, dtype=np.int32)
    n_sequences = len(tokens) // (length - 1)
    if not n_sequences:
        raise ValueError(
            f"{len(tokens)} tokens do not fill one sequence of {length}; give more text"
        )
    body = tokens[: n_sequences * (length - 1)].reshape(n_sequences, length - 1)
    return np.hstack([np.full((n_sequences, 1), first, dtype=np.int32), body])


@dataclass
class Corpus:
    """Packed sequences of several sources, drawn by weight.

    Attributes:
        sources: Name -> `(n_sequences, length)`.
        weights: Name -> share of the sequences drawn from it; they are divided by their sum.
    """

    sources: Mapping[str, np.ndarray]
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        """Join the sources, and count tokens and neighbours once."""
        names = list(self.sources)
        total = sum(self.weights[name] for name in names)
        self.bounds = np.cumsum([0, *(len(self.sources[name]) for name in names)])
        self.shares = np.array([self.weights[name] / total for name in names])
        self.sequences = np.concatenate([self.sources[name] for name in names])

    def draw(self, n_sequences: int, rng: np.random.Generator) -> np.ndarray:
        """`(n_sequences, length)` int64, with replacement."""
        source = rng.choice(len(self.shares), size=n_sequences, p=self.shares)
        low, high = self.bounds[source], self.bounds[source + 1]
        return self.sequences[
            low + (rng.random(n_sequences) * (high - low)).astype(np.int64)
        ].astype(np.int64)


class Bigrams:
    """The most frequent follower of each token in a corpus."""

    def __init__(self, sequences: np.ndarray, vocabulary_size: int) -> None:
        """Count the pairs in `sequences` `(n_sequences, length)` of token ids below
        `vocabulary_size`."""
        previous, self.following = sequences[:, :-1].ravel(), sequences[:, 1:].ravel()
        self.order = np.argsort(previous, kind="stable")
        self.starts = np.searchsorted(previous[self.order], np.arange(vocabulary_size + 1))
        self.unigram = int(np.bincount(self.following[self.following > 4]).argmax())

    def most_frequent(self, previous: np.ndarray) -> np.ndarray:
        """For each token its most frequent follower; the corpus' most frequent token where it has
        none."""
        best = {token: self._best(token) for token in np.unique(previous)}
        return np.array([best[token] for token in previous.ravel()]).reshape(previous.shape)

    def _best(self, token: int) -> int:
        followers = self.following[self.order[self.starts[token] : self.starts[token + 1]]]
        followers = followers[followers > 4]
        return int(np.bincount(followers).argmax()) if len(followers) else self.unigram


def targets(sequences: np.ndarray, n_targets: int) -> np.ndarray:
    """Ids of the most frequent tokens, special ones left out `(at most n_targets,)`."""
    counts = np.bincount(sequences.ravel())
    counts[:5] = 0
    order = np.argsort(-counts, kind="stable")[:n_targets]
    return order[counts[order] > 0]


def hide(
    batch: np.ndarray, candidates: np.ndarray, mask_id: int, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose tokens to be asked for; 8 of 10 become the mask, 1 another token, 1 stays (Devlin et
    al. 2019).

    Args:
        batch: `(n_sequences, length)`.
        candidates: `(vocabulary_size,)`, whether a token may be chosen.
        mask_id: The tokenizer's id of `[MASK]`.
        share: Share of the tokens that are hidden.
        rng: Source of randomness.

    Returns:
        The batch as the model sees it, and where the chosen tokens are; both of the batch's shape.
    """
    chosen = candidates[batch] & (rng.random(batch.shape) < share)
    fate = rng.random(batch.shape)
    random_tokens = rng.permutation(batch.ravel()).reshape(batch.shape)
    seen = np.where(chosen & (fate < 0.8), mask_id, batch)
    return np.where(chosen & (fate >= 0.9) & (random_tokens > 4), random_tokens, seen), chosen


class Objective(nn.Module):
    """The part on top of the encoder, thrown away afterwards."""

    def __init__(self, encoder: Any, plan: Plan, corpus: Corpus) -> None:
        """See `Plan`; the corpus says which tokens are asked for, and how often they occur."""
        super().__init__()
        self.target_of: Tensor
        self.vectors: Tensor
        self.encoder, self.plan, self.corpus = encoder, plan, corpus
        size = encoder.config.hidden_size
        vocabulary_size = encoder.config.vocab_size
        self.ids = ids = targets(corpus.sequences, plan.n_targets)
        self.candidates = np.zeros(vocabulary_size, dtype=bool)
        self.candidates[ids] = True
        self.transform = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size))
        counts = np.bincount(corpus.sequences.ravel(), minlength=vocabulary_size)[ids]
        target_of = torch.full((vocabulary_size,), -1)
        self.register_buffer(
            "target_of", target_of.index_copy(0, torch.from_numpy(ids), torch.arange(len(ids)))
        )
        # Unit length times a number that is learnt: else the long vectors of rare words would win
        # at the start.
        vectors = encoder.get_input_embeddings().weight.detach()[ids]
        self.register_buffer("vectors", functional.normalize(vectors, dim=1))
        self.scale = nn.Parameter(torch.tensor(5.0 / math.sqrt(size)))
        self.bias = nn.Parameter(torch.log(torch.from_numpy(counts / counts.sum()).float()))

    def prepare(
        self, batch: np.ndarray, rng: np.random.Generator, mask_id: int
    ) -> tuple[Tensor, ...]:
        """What `forward` reads of a batch `(n_sequences, length)`, made on the CPU.

        Returns:
            Ids and positions `(n_sequences, length)`; where the hidden tokens stand, counted
            through the batch, and which tokens they are, both `(n_hidden,)`.
        """
        # Half of the sequences stand further back, so that every position vector is trained.
        room = self.encoder.config.max_position_embeddings - batch.shape[1]
        offsets = rng.integers(0, room + 1, len(batch)) * (rng.random(len(batch)) < 0.5)
        seen, chosen = hide(batch, self.candidates, mask_id, self.plan.share, rng)
        # Places and not a mask: how many there are, a GPU would have to be asked.
        where, wanted = np.flatnonzero(chosen), batch[chosen]
        return (*_placed(seen, offsets), torch.from_numpy(where), torch.from_numpy(wanted))

    def forward(
        self, ids: Tensor, places: Tensor, where: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy over the tokens that are asked for, and the share of right answers;
        see `prepare`."""
        hidden = self.encoder(input_ids=ids, position_ids=places).last_hidden_state
        logits, targets = self.logits(hidden.flatten(end_dim=1)[where]), self.target_of[wanted]
        return functional.cross_entropy(logits.float(), targets), (
            logits.argmax(1) == targets
        ).float().mean()

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores `(n_tokens, n_targets)` of token vectors `(n_tokens, hidden_size)`."""
        return self.scale * (self.transform(hidden) @ self.vectors.T) + self.bias

    def encode(self, seen: np.ndarray, offsets: np.ndarray) -> Tensor:
        """Token vectors of `(n_sequences, length)` ids; all positions but the first are moved back
        by the offsets."""
        ids, places = devices.to(_placed(seen, offsets), self.encoder.device)
        return self.encoder(input_ids=ids, position_ids=places).last_hidden_state


def _placed(seen: np.ndarray, offsets: np.ndarray) -> tuple[Tensor, Tensor]:
    positions = np.arange(seen.shape[1])[None, :] + offsets[:, None]
    positions[:, 0] = 0
    return torch.from_numpy(seen), torch.from_numpy(positions)


def pretrain(
    encoder: Any,
    mask_id: int,
    corpus: Corpus,
    plan: Plan,
    checkpoint: Path | None = None,
    every: int = 100,
    show_progress: bool = False,
    objective: type[Objective] = Objective,
) -> tuple[pd.DataFrame, Objective]:
    """Train the encoder's layers in place; its word vectors stay frozen.

    Args:
        encoder: From `load_encoder`; it trains on the device where it is.
        mask_id: `tokenizer.mask_token_id`.
        corpus: Where the sequences come from.
        plan: Sizes, rates and seed of the training.
        checkpoint: File written whole every few rows of the history; if it exists, training goes on
            from it.
        every: Steps in a row of the history.
        show_progress: A progress bar.
        objective: What is learnt; `benchmarks/pretraining.py` tries another one.

    Returns:
        The history, a row each `every` steps: `step`, `loss`, `accuracy` (means over them),
        `tokens_per_s`, `seconds` in all; and the encoder with what was trained on top of it.

    Raises:
        DataError: A checkpoint that is damaged, or of another plan.
        FloatingPointError: The loss is no longer a number.
    """
    device = devices.of(encoder)
    dtype = devices.precision(device, plan.precision)
    torch.manual_seed(plan.seed)
    encoder.get_input_embeddings().weight.requires_grad_(False)
    model = objective(encoder, plan, corpus).to(device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(
        groups, lr=plan.learning_rate, betas=(0.9, 0.98), fused=device.type == "cuda" or None
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: cosine_with_warmup(step, plan.n_steps, plan.warmup)
    )
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    parts = {"optimiser": optimiser, "schedule": schedule, "scaler": scaler}
    history = _resume(checkpoint, model, parts, plan) if checkpoint and checkpoint.is_file() else []
    done = history[-1]["step"] if history else 0
    seconds = history[-1]["seconds"] if history else 0.0

    def prepare(step: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng([plan.seed, step])
        return model.prepare(corpus.draw(plan.batch_size, rng), rng, mask_id)

    readings, since = [], time.perf_counter()
    bar = tqdm(
        range(done + 1, plan.n_steps + 1),
        initial=done,
        total=plan.n_steps,
        disable=not show_progress,
    )
    for step, batch in zip(
        bar, devices.ahead((partial(prepare, n) for n in bar.iterable), device), strict=True
    ):
        # Dropout, too, depends on the step alone, so an interrupted run goes on as if nothing had
        # happened.
        torch.manual_seed(plan.seed * 1_000_003 + step)
        with devices.computing(device, dtype):
            loss, accuracy = model(*batch)
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        scaler.step(optimiser)
        scaler.update()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        readings.append(torch.stack([loss.detach(), accuracy]))
        if step % every and step < plan.n_steps:
            continue
        sums = (
            torch.stack(readings).cpu().double().sum(dim=0).tolist()
        )  # the one moment when the device is waited for
        n_steps, spent = step - done, time.perf_counter() - since
        if not math.isfinite(sums[0]):
            raise FloatingPointError(
                f"the loss is no number before step {step}; lower the learning rate"
            )
        seconds += spent
        rate = n_steps * batch[0].numel() / spent
        loss_mean, accuracy_mean = (value / n_steps for value in sums)
        history.append(
            {
                "step": step,
                "loss": loss_mean,
                "accuracy": accuracy_mean,
                "tokens_per_s": rate,
                "seconds": seconds,
            }
        )
        bar.set_postfix(loss=f"{history[-1]['loss']:.3f}", tokens_per_s=f"{rate:.0f}")
        if checkpoint and (len(history) % ROWS_PER_CHECKPOINT == 0 or step == plan.n_steps):
            _save(checkpoint, model, parts, plan, history)
        readings, since, done = [], time.perf_counter(), step
    return pd.DataFrame(history), model.eval()


@torch.inference_mode()
def masked_accuracy(
    model: Objective, sequences: np.ndarray, mask_id: int, batch_size: int = 64
) -> pd.DataFrame:
    """How often the hidden token is found in text that was not trained on, beside two answers
    without a network.

    Args:
        model: As `pretrain` returns it.
        sequences: `(n_sequences, length)`, held out.
        mask_id: The tokenizer's id of `[MASK]`.
        batch_size: Sequences at once.

    Returns:
        A row for each token asked for: `sequence`, its row in `sequences`; and whether an answer is
        right: `model`; `bigram`, the most frequent follower of the token before (which is itself
        hidden here and there); `unigram`, the most frequent token.
    """
    bigrams = Bigrams(model.corpus.sequences, len(model.candidates))
    tables = []
    device = model.encoder.device
    dtype = devices.precision(device, model.plan.precision)
    for start in range(0, len(sequences), batch_size):
        batch = sequences[start : start + batch_size].astype(np.int64)
        rng = np.random.default_rng([model.plan.seed, start])
        # Every token that is asked for is hidden: none stays to be read off.
        chosen = model.candidates[batch] & (rng.random(batch.shape) < model.plan.share)
        if not chosen.any():
            continue
        with devices.computing(device, dtype):
            hidden = model.encode(
                np.where(chosen, mask_id, batch), np.zeros(len(batch), dtype=np.int64)
            )
            answers = model.logits(hidden[torch.from_numpy(chosen).to(device)]).argmax(1)
        best = model.ids[answers.cpu().numpy()]
        previous = np.roll(batch, 1, axis=1)[chosen]
        wanted = batch[chosen]
        right = {
            "model": best,
            "bigram": bigrams.most_frequent(previous),
            "unigram": bigrams.unigram,
        }
        rows = pd.DataFrame({name: answer == wanted for name, answer in right.items()})
        tables.append(rows.assign(sequence=start + np.nonzero(chosen)[0]))
    return pd.concat(tables, ignore_index=True)


def accuracies(right: pd.DataFrame, n_resamples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """Share of right answers of each kind, with its interval.

    Args:
        right: As `masked_accuracy` returns it. Whole sequences are resampled: their tokens resemble
            each other.
        n_resamples: See `intervals.bootstrap`.
        seed: See `intervals.bootstrap`.
    """
    require_columns(right, ["sequence"])
    sequences = right.groupby("sequence")
    hits, asked = sequences.sum(), sequences.size().to_numpy()
    return {
        str(name): bootstrap(
            _share, hits[name].to_numpy(), asked, n_resamples=n_resamples, seed=seed
        )
        for name in hits
    }


def _share(hits: np.ndarray, asked: np.ndarray) -> float:
    return float(hits.sum() / asked.sum())


def save_layers(encoder: Any, path: Path) -> str:
    """Write what was trained (no word vectors, no pooler) as float16 safetensors; returns the
    file's sha256."""
    weights = {name: p.detach().half().cpu().contiguous() for name, p in trained_layers(encoder)}
    write_whole(path, save(weights))
    return sha256(path)


def recorded(folder: Path = LAYERS.parent) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What `run` wrote about the layers that come with the project.

    Args:
        folder: The folder of another run.

    Returns:
        The history (see `pretrain`), and the results: `masked_accuracy` on held-out text (`model`,
        `bigram`, `unigram`, each with `value`, `low`, `high`), `plan` (see `Plan`, and `length`)
        and `sources` (each with `name`, `tokens`, `weight`). What was added by hand may be missing:
        a source's `licence`; `hardware`; `downstream`, a list of measures with and without
        pretraining (`what`, and with intervals `untrained`, `pretrained`, `gain`).

    Raises:
        DataError: A file is missing, or a part of the results.
    """
    history, results = folder / "history.csv", folder / "results.json"
    for path in (history, results):
        if not path.is_file():
            raise DataError(
                f"{path} is missing: install the project again, or give the output folder of a "
                "pretraining"
            )
    content = json.loads(results.read_text(encoding="utf-8"))
    missing = {"masked_accuracy", "plan", "sources"} - set(content)
    if missing:
        raise DataError(
            f"{results} lacks {', '.join(sorted(missing))}; `viralbert pretrain` writes them"
        )
    return pd.read_csv(history), content


@dataclass(frozen=True)
class Source:
    """Where texts come from, and how often: `novels.txt.xz=0.2`, or `train.csv#title,text=0.1` with
    columns."""

    path: Path
    columns: tuple[str, ...]
    weight: float

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read `path[#column[,column]]=weight`.

        Raises:
            DataError: It is not of that form.
        """
        match = re.fullmatch(r"([^#=]+)(?:#([^=]+))?=([\d.]+)", text)
        if not match:
            raise DataError(
                f"source {text!r}: expected path=weight or path#column=weight, such as "
                "drama.txt.xz=0.2"
            )
        return cls(
            own_path(match[1]),
            tuple((match[2] or "").split(",")) if match[2] else (),
            float(match[3]),
        )

    def texts(self) -> list[str]:
        """One text a line (`.txt`, `.txt.xz`), or the columns of a table, joined."""
        if self.columns:
            table = read_table(self.path)
            missing = [column for column in self.columns if column not in table]
            if missing:
                raise DataError(
                    f"{self.path} has no column {missing[0]!r}; it has {', '.join(table.columns)}: "
                    "name one of these behind the #"
                )
            return [
                " ".join(row) for row in table[list(self.columns)].fillna("").astype(str).to_numpy()
            ]
        check_there(self.path)
        check_plain(self.path)
        opened = lzma.open if self.path.suffix == ".xz" else open
        with opened(self.path, "rt", encoding="utf-8") as file:
            return [line for line in file.read().split("\n") if line.strip()]


def run(
    sources: Sequence[Source],
    folder: Path,
    plan: Plan,
    length: int = 64,
    held_out: float = 0.02,
    recipe: Recipe | None = None,
) -> dict[str, float]:
    """Pretrain an encoder of the recipe's shape from its start, and write what the project ships.

    Args:
        sources: Where the texts come from; the share `held_out` of each is kept for the accuracy.
        folder: Gets `layers.safetensors`, `history.csv` and `results.json` (see `recorded`); the
            checkpoint there lets a stopped run go on.
        plan: How to train.
        length: Tokens in a sequence.
        held_out: Share of each source's texts.
        recipe: Shape of the encoder; its layers start as the identity.

    Returns:
        Accuracies on held-out text (`model`, `bigram`, `unigram`), seconds and tokens a second.
    """
    with locked(folder):
        return _run(sources, folder, plan, length, held_out, recipe or Recipe())


def _run(
    sources: Sequence[Source],
    folder: Path,
    plan: Plan,
    length: int,
    held_out: float,
    recipe: Recipe,
) -> dict[str, float]:
    tokenizer, encoder = load_encoder(str(embedded_folder(replace(recipe, pretrained=False))))
    packed, unseen, weights = {}, [], {}
    for source in sources:
        texts = source.texts()
        random.Random(plan.seed).shuffle(texts)
        n_held = max(1, round(held_out * len(texts)))
        packed[str(source.path)] = pack(tokenizer, texts[n_held:], length)
        weights[str(source.path)] = source.weight
        unseen.append(pack(tokenizer, texts[:n_held], length))
    history, model = pretrain(
        encoder,
        tokenizer.mask_token_id,
        Corpus(packed, weights),
        plan,
        folder / "checkpoint.pt",
        show_progress=True,
    )
    save_layers(encoder, folder / "layers.safetensors")
    write_whole(folder / "history.csv", history.to_csv(index=False))
    estimates = accuracies(masked_accuracy(model, np.concatenate(unseen), tokenizer.mask_token_id))
    results = {
        "masked_accuracy": {name: asdict(estimate) for name, estimate in estimates.items()},
        "plan": asdict(plan) | {"length": length},
        "sources": [
            {"name": Path(name).name, "tokens": packed[name].size, "weight": weights[name]}
            for name in packed
        ],
    }
    write_whole(folder / "results.json", json.dumps(results, indent=1) + "\n")
    speed = {
        "seconds": history["seconds"].iloc[-1],
        "tokens_per_s": history["tokens_per_s"].median(),
    }
    return {name: estimate.value for name, estimate in estimates.items()} | speed


def _learnt(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _save(
    path: Path, model: nn.Module, parts: Mapping[str, Any], plan: Plan, history: list
) -> None:
    state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    write_checkpoint(
        path, state | {"model": _learnt(model), "plan": asdict(plan), "history": history}
    )


def _resume(
    path: Path, model: nn.Module, parts: Mapping[str, Any], plan: Plan
) -> list[dict[str, Any]]:
    state = read_checkpoint(path, {"model", "plan", "history", *parts})
    if state["plan"] != asdict(plan):
        raise DataError(
            f"checkpoint {path} was made with another plan ({state['plan']}); keep the plan, or "
            "give another folder"
        )
    learnt = _learnt(model)
    with torch.no_grad():
        for name, value in state["model"].items():
            learnt[name].copy_(value)
    for name, part in parts.items():
        if state[
            name
        ]:  # a run without float16 leaves nothing for the scaler, which then starts anew
            part.load_state_dict(state[name])
    return list(state["history"])
