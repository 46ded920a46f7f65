"""The baseline that every model must beat: TF-IDF and logistic regression (lesson 01)."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from threadpoolctl import threadpool_limits


def tfidf(max_features: int = 100_000) -> FeatureUnion:
    """TF-IDF of word 1-2-grams and of character 2-5-grams within words.

    Args:
        max_features: Kept n-grams for each of the two, the most frequent ones.
    """
    common = {"sublinear_tf": True, "min_df": 2, "max_features": max_features, "dtype": np.float32}
    words = TfidfVectorizer(
        ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", preprocessor=_fold, **common
    )
    characters = TfidfVectorizer(
        ngram_range=(2, 5), analyzer="char_wb", preprocessor=_fold, **common
    )
    return make_union(words, characters)


def tfidf_logistic(max_features: int = 100_000, C: float = 2.0, balanced: bool = False) -> Pipeline:
    """TF-IDF features and logistic regression, one classifier for each label.

    Args:
        max_features: See `tfidf`.
        C: Inverse strength of the L2 penalty.
        balanced: Weight rows inversely to the frequency of their class.

    Returns:
        An unfitted scikit-learn pipeline with `fit(texts, labels)` and `predict_proba(texts)`;
        labels are a 0/1 matrix `(n_texts, n_classes)` or one value a text.
    """
    return make_pipeline(tfidf(max_features), one_vs_rest(C, balanced))


def one_vs_rest(C: float = 2.0, balanced: bool = False) -> OneVsRestClassifier:
    """One logistic regression a label on given features; arguments as in `tfidf_logistic`."""
    weight = "balanced" if balanced else None
    return _OneCore(LogisticRegression(C=C, solver="liblinear", class_weight=weight))


class _OneCore(OneVsRestClassifier):
    """One thread: liblinear's small products take many times as long on several cores."""

    def fit(self, X: Any, y: Any, **options: Any) -> _OneCore:
        with threadpool_limits(1, user_api="blas"):
            return super().fit(X, y, **options)


def _fold(text: str) -> str:
    return text.lower().replace("ё", "е")
