"""What somebody has named: data, an encoder, or where to write. Refused before anything is loaded.

A name is looked at in a moment, while a kernel or a model takes minutes to be there.
"""

from __future__ import annotations

from pathlib import Path

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path

_KEYWORDS = ("sample", "hub")


def check_data(source: str, base: Path = Path()) -> None:
    """Refuse data that are neither `sample` nor `hub` nor a folder.

    Args:
        source: What `--data` says.
        base: Where a relative path begins.

    Raises:
        DataError: There is no such folder, or it is a file.
    """
    if source in _KEYWORDS or (base / own_path(source)).is_dir():
        return
    if own_path(source).exists():
        raise DataError(
            f"data {source!r} is a file; expected 'sample', 'hub' or a folder laid out as "
            "<set>/<split>.csv: give the folder of the set that it lies in"
        )
    raise DataError(
        f"data folder {source!r} does not exist; give 'sample', 'hub' or an existing folder"
    )


def check_encoder(name: str, base: Path = Path(), offline: bool = False) -> None:
    """Refuse an encoder that is neither `embedded` nor a folder nor to be had from the hub.

    Args:
        name: What `--encoder` says.
        base: Where a relative path begins.
        offline: Whether only the hub's cache may be asked.

    Raises:
        DataError: It cannot be loaded.
    """
    if name == "embedded" or (base / own_path(name)).is_dir():
        return
    from unittest.mock import patch

    from huggingface_hub import constants

    from viralbert_utils.encoders.loading import load_tokenizer

    with patch.object(constants, "HF_HUB_OFFLINE", offline or constants.HF_HUB_OFFLINE):
        load_tokenizer(name)


def check_output(path: Path, folder: bool) -> None:
    """Refuse a place where a folder, or a file, cannot be written.

    Args:
        path: What `--output` says; need not be there yet.
        folder: Whether a folder is written, or a file.

    Raises:
        DataError: A file is there in the place of a folder, or the other way round.
    """
    if folder and path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file; expected a folder, or a name that is free")
    if not folder and path.is_dir():
        raise DataError(
            f"{path} is a folder; expected the name of a file to write: give a name in it, such as "
            f"{path / 'output'}"
        )
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise DataError(f"{path} cannot be written: {parent} is a file; give another name")
            return
