"""The product behind the `viralbert` command.

Moments, serving, the shipped model, training, archives, and the course's runner.
`from viralbert import ViralBERT` takes what answers: `ViralBERT.load().predict("...")`.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    # Read when it is asked for: most commands have no use for a model.
    if name in ("Predictor", "ViralBERT"):
        return getattr(import_module("viralbert.serving.predictor"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
