"""Versions and device, as reports name them."""

from __future__ import annotations

import importlib.metadata
import platform

from viralbert_utils.base import devices

VERSIONS_SHOWN = (
    "torch",
    "transformers",
    "datasets",
    "scikit-learn",
    "numpy",
    "pandas",
    "matplotlib",
    "papermill",
)


def environment() -> dict[str, str]:
    """Python, the main packages, and the device that models compute on here."""
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in VERSIONS_SHOWN}
    return versions | {"device": devices.describe()}
