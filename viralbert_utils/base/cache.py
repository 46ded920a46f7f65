"""Folders that are built once and kept in the user's cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import SUMS, locked, own_path, whole_folder, write_sums


def cache_folder() -> Path:
    """Where built encoders and models are kept: `$VIRALBERT_CACHE`, or the user's cache folder."""
    base = os.environ.get("VIRALBERT_CACHE")
    return (
        own_path(base)
        if base
        else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "viralbert"
    )


def build_once(target: Path, build: Callable[[Path], object], what: str) -> bool:
    """Fill a folder of the cache if it isn't there; other processes wait meanwhile.

    Args:
        target: The folder; with its sums it is complete.
        build: Fills the new folder that it is given.
        what: Name and size of what is built, for the message.

    Returns:
        Whether this call has built it.

    Raises:
        DataError: There is no room for it.
    """
    # One without sums was built before there were any.
    if (target / SUMS).is_file():
        return False
    try:
        with locked(target.parent):
            if not (target / SUMS).is_file():
                with whole_folder(target) as new:
                    build(new)
                    write_sums(new)
    except OSError as error:
        raise DataError(
            f"{what} cannot be kept in {cache_folder()}: {error}; name another folder in "
            "VIRALBERT_CACHE"
        ) from None
    return True
