"""What a system makes of each class, as a table (lesson 08)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from viralbert_utils.evaluation.metrics import f1_per_class, mean_roc_auc, weighted_counts


def per_class(
    labels: np.ndarray, scores: np.ndarray, predictions: np.ndarray, names: Sequence[str]
) -> pd.DataFrame:
    """What a system makes of each class, in both definitions of F1, and the means over the classes.

    Args:
        labels: `(n_texts, n_classes)`, 0/1.
        scores: Same shape.
        predictions: Same shape, 0/1.
        names: The classes, in the order of the columns.

    Returns:
        A row a class, and `macro`: `ROC AUC` (NaN where a class has no positive or no negative row;
        the mean leaves it out), `F1`, `F1, both` (mean of the positive and the negative class'),
        `precision`, `recall`.
    """
    hits, positives, predicted = (
        counts[0] for counts in weighted_counts(labels, predictions, np.ones((1, len(labels))))
    )
    f1 = f1_per_class(labels, predictions)
    mixed = (labels.min(axis=0) < labels.max(axis=0)).tolist()
    table = pd.DataFrame(
        {
            "ROC AUC": [
                mean_roc_auc(labels[:, k], scores[:, k]) if has_both else np.nan
                for k, has_both in enumerate(mixed)
            ],
            "F1": f1,
            "F1, both": (f1 + f1_per_class(1 - labels, 1 - predictions)) / 2,
            "precision": hits / np.maximum(predicted, 1),
            "recall": hits / np.maximum(positives, 1),
        },
        list(names),
    )
    table.loc["macro"] = table.mean()
    return table
