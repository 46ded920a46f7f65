"""Fetching beforehand what a profile takes from the hub, so that the run itself needs no network.

Loading is downloading: each encoder and each data set is loaded once, by the same code as in a run,
so what is kept is complete and readable. The hub's library keeps finished files and goes on with
those that were cut off.
"""

from __future__ import annotations

import os
from pathlib import Path

from viralbert.course.runner import KEYWORDS, Run
from viralbert.places import check_data
from viralbert_utils.base.files import own_path


def wanted(course_run: Run) -> tuple[list[str], list[str]]:
    """Name the encoders and data sets that a run takes from the hub.

    They come in the order in which the notebooks first use them.
    """
    selected = course_run.selected()  # refuses a wrong number before pandas is imported
    for notebook in selected:
        check_data(str(course_run.parameters(notebook).get("data", "sample")), notebook.path.parent)
    from viralbert_utils.data import sources

    encoders: dict[str, None] = {}
    sets: dict[str, None] = {}
    for notebook in selected:
        values = {
            name: default for name, (_, default) in notebook.parameters.items()
        } | course_run.parameters(notebook)
        encoder = str(values.get("encoder", "embedded"))
        if encoder not in KEYWORDS and not (notebook.path.parent / own_path(encoder)).is_dir():
            encoders[encoder] = None
        for kind, _, name in (item.partition(":") for item in notebook.reads):
            if kind == "data" and values.get("data") == "hub" and sources.has(name, "hub"):
                sets[name] = None
    return list(encoders), list(sets)


def download(course_run: Run, folder: Path | None = None) -> tuple[list[str], list[str]]:
    """Fetch the encoders and data sets of a run.

    Args:
        course_run: Profile, data and encoder as for `viralbert run`.
        folder: Encoders go to `hub/` in it (the hub library's own cache layout), data sets as
            tables to `data/`. Without it, both go to the usual cache. To be called before the hub's
            library is imported, which reads `HF_HUB_CACHE` once.

    Returns:
        Names of the encoders and of the data sets that are now there.

    Raises:
        DataError: Something could not be fetched; what was finished is kept, and a second call goes
            on from there.
    """
    encoders, sets = wanted(course_run)
    if folder is not None:
        os.environ["HF_HUB_CACHE"] = str((folder / "hub").resolve())
    from viralbert_utils.data import sources
    from viralbert_utils.encoders.loading import load_encoder

    for name in encoders:
        load_encoder(name)
    loaded = {name: sources.load(name, "hub") for name in sets}
    if folder is not None and loaded:
        sources.save_sets(
            {name: dataset.splits for name, dataset in loaded.items()}, folder / "data"
        )
    return encoders, sets
