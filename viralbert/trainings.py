"""What `viralbert train` can be asked for: one training, or a profile of several.

Nothing here is heavy to import, so a wrong setting is refused at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from viralbert.plain_yaml import read_yaml
from viralbert_utils.base.errors import DataError

DATASETS = ("cedr", "combo", "emotions", "multitask", "viralbert")
SPLITS = {"dev": "validation", "test": "test"}
PROFILES = Path(__file__).parent / "train_profiles"


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        encoder: A hub name, a folder or `embedded`; see `loading.load_encoder`.
        dataset: `emotions` (28), `cedr` (6), `combo` (6: CEDR and GoEmotions to train on, CEDR's
            own rows to judge by), `multitask` (28 and virality, with PCGrad), or `viralbert` (28,
            the 6 of CEDR if the data have it, and virality, taught by other models; see
            `distillation`).
        data: `sample`, `hub` or a folder; see `sources.load`. The sample has no
            CEDR: its emotions are mapped to the six classes.
        epochs: The best one on dev is kept (dataset `viralbert`: the last one).
        learning_rate: The encoder's highest rate; the heads learn ten times as fast. 0 means 1e-3
            for `embedded`, else 2e-5.
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
    epochs: int = 3
    learning_rate: float = 0.0
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
        least = {"epochs": 1, "batch_size": 1, "max_length": 3, "max_rows": 0, "learning_rate": 0}
        for name, bound in least.items():
            if not bound <= getattr(self, name) < float("inf"):
                raise DataError(f"{name} is {getattr(self, name)}; expected at least {bound}")
        if not set(self.evaluate) <= SPLITS.keys():
            raise DataError(f"cannot evaluate {', '.join(self.evaluate)}; use dev, test or both")

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
    path = PROFILES / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise DataError(f"no profile {name!r} of trainings; there are: {names}")
    settings_of = read_yaml(path.read_text(encoding="utf-8"), path.name)
    return {run: Training(**(settings | dict(changes))) for run, settings in settings_of.items()}


def recipe(training: Training) -> dict[str, Any]:
    """A training's settings as JSON gives them back."""
    return asdict(training) | {"evaluate": list(training.evaluate)}


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
    if figures["recipe"] != recipe(training):
        raise DataError(
            f"{output} holds another training ({path}); give another folder, or delete it"
        )
    if figures["files"] != files:
        raise DataError(
            f"the data have changed since {path} was written; give another folder, or delete it"
        )
    return figures
