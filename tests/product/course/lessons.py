"""Lessons of the tiny course: their parameters, what they declare, and their executed copies."""

import nbformat

from viralbert.course.runner import Run

PARAMETERS = (
    'data: str = "sample"  # source\nrun_dir: str = "."  # folder\nepochs: int = 3  # '
    "passes\nrate: float = 0.5"
)


def executed(run: Run, number: int = 0) -> nbformat.NotebookNode:
    return nbformat.read(run.executed(run.notebooks[number]), as_version=4)


def declare(run: Run, number: int, **metadata: list[str]) -> Run:
    path = run.notebooks[number].path
    node = nbformat.read(path, as_version=4)
    node.metadata["viralbert"] = metadata
    nbformat.write(node, path)
    return Run(root=run.root)
