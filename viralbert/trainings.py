"""What `viralbert train` can be asked for: one training, or a profile of several.

Nothing here is heavy to import, so a wrong setting is refused at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import write_whole

DATASETS = (
    "cedr",
    "combo",
    "emotions",
    "multitask",
    "viralbert",
    "virality",
    "reviews",
    "grades",
)
# The names of `encoders.pooling` and `lessons.rare_classes`, which are heavy to import.
POOLINGS = ("cls", "mean", "max", "attention")
WEIGHTINGS = ("none", "sqrt", "clipped", "balanced", "power")
KEEP = ("best", "last", "both")
SPLITS = {"dev": "validation", "test": "test"}
PROFILES = Path(__file__).parent / "train_profiles"


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        encoder: A hub name, a folder or `embedded`; see `loading.load_encoder`.
        dataset: `emotions` (28), `cedr` (6), `combo` (6: CEDR and GoEmotions to train on, CEDR's
            own rows to judge by), `virality`, `multitask` (28 and virality, with PCGrad),
            `viralbert` (28, the 6 of CEDR if the data have it, and virality, taught by other
            models; see `distillation`), `reviews` (bad, neutral, good) or `grades` (the marks 0-10
            of the same reviews).
        data: `sample`, `hub` or a folder; see `sources.load`. The sample has no
            CEDR: its emotions are mapped to the six classes.
        virality_file: A table with `text` and `label` in the place of the data's virality.
        pooling: What makes one vector of a text, see `pooling.pool`.
        pos_weight: How much positives of rare classes count, see `rare_classes.positive_weights`;
            `clipped` is ViralBERT v2's. Virality, a single class, has none. In `reviews` and
            `grades` it weighs the classes of the cross-entropy.
        epochs: All together, frozen ones included.
        frozen_epochs: So many train the heads alone, on an encoder that stays as it is.
        top_layers: Layers of the encoder that train after that, from the top; `None` = all.
        keep: Which epoch's weights become `model/`: the `best` on dev or the `last`; `both` writes
            the last ones to `model-last/` besides (dataset `viralbert`: always the last).
        learning_rate: The encoder's highest rate. 0 means 1e-3 for `embedded` (dataset `viralbert`:
            5e-4), else 2e-5.
        layer_share: That rate as a share of the heads' rate.
        frozen_rate: The heads' highest rate in frozen epochs; 0 means the one that they have later.
        warmup: Share of each stage's updates in which the rate rises; 1 or more: their number.
        schedule: How the rate falls; see `settings.Settings`.
        batch_size: Number of texts in an update, all processes together.
        max_length: Number of tokens that are kept of a text.
        max_rows: Only the first rows of each table; 0 = all.
        seed: Decides on splits, heads and batches.
        evaluate: The splits to judge by: `dev`, `test`.
        export_onnx: Write the model as ONNX, too.
        note: Goes into `metrics.json`.
    """

    encoder: str = "embedded"
    dataset: str = "emotions"
    data: str = "sample"
    virality_file: str = ""
    pooling: str = "mean"
    pos_weight: str = "none"
    epochs: int = 3
    frozen_epochs: int = 0
    top_layers: int | None = None
    keep: str = "best"
    learning_rate: float = 0.0
    layer_share: float = 0.1
    frozen_rate: float = 0.0
    warmup: float = 0.1
    schedule: str = "cosine"
    batch_size: int = 16
    max_length: int = 128
    max_rows: int = 0
    seed: int = 0
    evaluate: tuple[str, ...] = ("dev", "test")
    export_onnx: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse what is not known."""
        if self.dataset not in DATASETS:
            raise DataError(f"dataset {self.dataset!r} is not known; use {', '.join(DATASETS)}")
        least = {
            "epochs": 1,
            "frozen_epochs": 0,
            "top_layers": 0,
            "batch_size": 1,
            "max_length": 3,
            "max_rows": 0,
            "learning_rate": 0,
            "frozen_rate": 0,
            "warmup": 0,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not bound <= value < float("inf"):
                raise DataError(f"{name} is {value}; expected at least {bound}")
        if self.frozen_epochs > self.epochs:
            raise DataError(
                f"frozen_epochs is {self.frozen_epochs}, and there are {self.epochs} epochs; "
                "expected as many at most"
            )
        if not 0 < self.layer_share <= 1:
            raise DataError(
                f"layer_share is {self.layer_share}; expected more than 0 and at most 1 (the "
                "encoder learns as fast as the heads)"
            )
        for name, known in (("pos_weight", WEIGHTINGS), ("keep", KEEP)):
            if getattr(self, name) not in known:
                raise DataError(
                    f"{name} {getattr(self, name)!r} is not known; use {', '.join(known)}"
                )
        if not set(self.pooling.split("+")) <= set(POOLINGS):
            raise DataError(
                f"pooling {self.pooling!r} is not known; use {', '.join(POOLINGS)}, or several "
                "joined by +"
            )
        if self.virality_file and self.dataset not in ("multitask", "viralbert", "virality"):
            raise DataError(
                f"dataset {self.dataset} reads no virality; leave --virality-file out, or use "
                "multitask, virality or viralbert"
            )
        if not set(self.evaluate) <= SPLITS.keys():
            raise DataError(f"cannot evaluate {', '.join(self.evaluate)}; use dev, test or both")

    @property
    def rate(self) -> float:
        """The encoder's highest rate: as given, or the usual one of the encoder."""
        return self.learning_rate or usual_rate(self.encoder, self.dataset)

    def check_length(self, tokenizer: Any, encoder: Any) -> None:
        """Refuse to keep more tokens of a text than the encoder reads.

        Raises:
            DataError: `max_length` is larger.
        """
        from viralbert_utils.encoders.loading import n_positions

        if self.max_length > (room := min(int(tokenizer.model_max_length), n_positions(encoder))):
            raise DataError(
                f"max_length is {self.max_length}, and the encoder {self.encoder!r} reads {room} "
                "at most"
            )


def profile(name: str, changes: Mapping[str, Any]) -> dict[str, Training]:
    """The trainings of `train_profiles/<name>.yaml` by name, with some settings changed in all.

    Raises:
        DataError: There is no such profile.
    """
    from viralbert.plain_yaml import read_yaml

    path = PROFILES / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise DataError(f"no profile {name!r} of trainings; there are: {names}")
    settings_of = read_yaml(path.read_text(encoding="utf-8"), path.name)
    return {run: Training(**(settings | dict(changes))) for run, settings in settings_of.items()}


def recipe(training: Training) -> dict[str, Any]:
    """A training's settings as JSON gives them back, with the rate that is really used."""
    used = {"learning_rate": training.rate, "evaluate": list(training.evaluate)}
    return asdict(training) | used


def usual_rate(encoder: str, dataset: str) -> float:
    """The encoder's highest rate where none is given."""
    if encoder != "embedded":
        return 2e-5
    return 5e-4 if dataset == "viralbert" else 1e-3


def keep_to(output: Path, training: Training, files: list[dict[str, Any]]) -> Path:
    """Let the folder belong to one training: what it left there before a stop is used again.

    Args:
        output: The training's folder.
        training: What is asked for.
        files: The files that it reads, with their sha256.

    Returns:
        The file in which that stands.

    Raises:
        DataError: The folder holds another training, or the data have changed.
    """
    path = output / "training.json"
    mine = {"recipe": recipe(training), "files": files}
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if _completed(before["recipe"]) != mine["recipe"] or before["files"] != files:
            raise DataError(
                f"{output} holds another training, or the data have changed since it began "
                f"({path}); give another folder, or delete it"
            )
    write_whole(path, json.dumps(mine, ensure_ascii=False, indent=1) + "\n")
    return path


def finished(
    output: Path, training: Training, files: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """What a finished training has left in `metrics.json`; `None` if none has finished there.

    Args:
        output: The training's folder.
        training: What is asked for.
        files: The files that it reads, with their sha256.

    Raises:
        DataError: The folder holds another training, or one of other data.
    """
    path = output / "metrics.json"
    if output.is_file():
        raise DataError(f"{output} is a file; expected a folder, or a name that is free")
    if not path.is_file():
        return None
    figures = json.loads(path.read_text(encoding="utf-8"))
    if _completed(figures["recipe"]) != recipe(training):
        raise DataError(
            f"{output} holds another training ({path}); give another folder, or delete it"
        )
    if figures["files"] != files:
        raise DataError(
            f"the data have changed since {path} was written; give another folder, or delete it"
        )
    return figures


def _completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored recipe: from before there was a setting, it was made with its default."""
    completed = recipe(Training()) | dict(stored)
    if not completed["learning_rate"]:  # before the rate itself was written, 0 meant the usual one
        completed["learning_rate"] = usual_rate(completed["encoder"], completed["dataset"])
    return completed
