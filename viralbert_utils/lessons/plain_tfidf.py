"""Fitted TF-IDF as plain values, so that it is stored as JSON and numbers and not as a pickle
(lesson 07)."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.pipeline import FeatureUnion

from viralbert_utils.evaluation.baselines import tfidf


def to_plain(features: FeatureUnion) -> tuple[list[list[str]], list[np.ndarray]]:
    """What `baselines.tfidf` has learnt.

    Returns:
        For each of its vectorizers the n-grams in the order of their columns, and the inverse
        document frequency of each `(n_terms,)`.
    """
    vectorizers: list[Any] = [vectorizer for _, vectorizer in features.transformer_list]
    terms = [sorted(one.vocabulary_, key=one.vocabulary_.get) for one in vectorizers]
    return terms, [np.asarray(one.idf_) for one in vectorizers]


def from_plain(terms: list[list[str]], frequencies: list[np.ndarray]) -> FeatureUnion:
    """The TF-IDF that `to_plain` made plain; it transforms as it did.

    Raises:
        ValueError: Terms and frequencies do not belong together, or a term stands twice.
    """
    features = tfidf()
    vectorizers: list[Any] = [vectorizer for _, vectorizer in features.transformer_list]
    for one, own_terms, own_idf in zip(vectorizers, terms, frequencies, strict=True):
        one.vocabulary_ = {term: column for column, term in enumerate(own_terms)}
        if not len(one.vocabulary_) == len(own_terms) == len(own_idf):
            raise ValueError(
                f"expected a frequency for each of {len(one.vocabulary_)} different terms, found "
                f"{len(own_idf)}"
            )
        one.idf_ = own_idf
    return features
