"""Which package a module that is missing belongs to, and what pip is told to bring it."""

from __future__ import annotations

import importlib.metadata
import re

PROJECT = "viralbert-course"  # as pip knows it
# Modules that are not called like their package, or that come with another one.
_PACKAGES = {
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "starlette": "fastapi",
    "pydantic": "fastapi",
    "tokenizers": "transformers",
    "huggingface_hub": "transformers",
}


def missing(module: str) -> str:
    """What to say where a module cannot be imported: its package, and the line that installs it."""
    return f"the package {_package(module)} is not installed: {install(module)}"


def install(module: str) -> str:
    """The line that installs the package of a module: with the project, or with one of its extras.

    It names the project, not a folder. pip takes that for the one which is installed, from a
    checkout or otherwise, and adds what it lacks; so the line does the same in every folder.
    """
    package = _package(module)
    extras = (
        re.fullmatch(rf'{re.escape(package)}[<>=[].*; extra == "(.+)"', line)
        for line in requirements()
    )
    return f"pip install '{next((f'{PROJECT}[{match[1]}]' for match in extras if match), PROJECT)}'"


def is_own(module: str) -> bool:
    """Whether the project or one of its extras asks for the package of a module."""
    package = _package(module)
    return any(re.match(rf"{re.escape(package)}(?![\w.-])", line) for line in requirements())


def _package(module: str) -> str:
    top = module.partition(".")[0]
    return _PACKAGES.get(top, top.replace("_", "-"))


def requirements() -> list[str]:
    """What the project and its extras ask for, a line each as pip reads it."""
    try:
        return importlib.metadata.requires(PROJECT) or []
    except importlib.metadata.PackageNotFoundError:  # run from its folder, without being installed
        return []
