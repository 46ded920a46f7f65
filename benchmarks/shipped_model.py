"""The data that the shipped model learns from, and the figures of its card.

    .venv/bin/python benchmarks/shipped_model.py data <data folder> <new folder>

writes one folder out of several sources: GoEmotions in Russian and the sample's emotions to train
on, GoEmotions' validation split to tune and to score; CEDR's training split, cut once; virality by
the sample's annotation guide, and as further training rows the older headlines of a news site.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from viralbert_utils.data import cleaning, sources, splits

HEADLINES = {"train": 0.85, "later": 0.15}  # by time: what is scored lies after what is learnt


def cleaned(name: str, source: str) -> dict[str, pd.DataFrame]:
    """A set's splits as published, cleaned."""
    return cleaning.clean(sources.load(name, source), **cleaning.RULES[name]).splits


def headlines(source: str) -> dict[str, pd.DataFrame]:
    """The news site's headlines, the older ones to train on and the later ones to score."""
    return splits.by_time(cleaned("virality", source)["train"], "published_at", HEADLINES)


def sample(name: str) -> dict[str, pd.DataFrame]:
    """The course's own rows, split as the lessons split them."""
    return splits.split_set(name, cleaned(name, "sample"))


def write_data(source: str, folder: Path) -> None:
    """Write the folder that the shipped model is trained on."""
    general, own = cleaned("emotions", source), sample("emotions")
    viral = sample("virality")
    tables = {
        "emotions/train": [general["train"], own["train"]],
        "emotions/validation": [general["validation"]],
        "virality/train": [viral["train"], headlines(source)["train"]],
        "virality/validation": [viral["validation"], viral["test"]],
    }
    six = splits.by_label(cleaned("cedr", source)["train"], {"train": 0.85, "validation": 0.15})
    tables |= {f"cedr/{split}": [table] for split, table in six.items()}
    for name, parts in tables.items():
        columns = ["text", "label" if name.startswith("virality") else "labels"]
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = pd.concat([part[columns] for part in parts], ignore_index=True)
        rows.to_json(path, orient="records", lines=True, force_ascii=False)
        print(f"{path}: {len(rows)} rows")


def main() -> None:
    """Run what the first argument names."""
    match sys.argv[1:]:
        case ["data", source, folder]:
            write_data(source, Path(folder))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
