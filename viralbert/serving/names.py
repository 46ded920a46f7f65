"""Names of models, as a command line gives them and requests choose by them."""

import re
from collections.abc import Sequence
from pathlib import Path

from viralbert_utils.base.errors import DataError

UNNAMED = "default"  # the name of a model that was given none
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def named(models: Sequence[str]) -> dict[str, str]:
    """Read `["emotions=FOLDER", ...]`, as they come from a command line: name -> folder, in order.

    A folder without a name is called `default`, and so is one whose own name has a `=` in it. No
    models at all are one without a folder.

    Raises:
        DataError: Two have one name.
    """
    found: dict[str, str] = {}
    for given in models or [""]:
        name, is_named, folder = given.partition("=")
        if not is_named or not _NAME.fullmatch(name) or Path(given).is_dir():
            name, folder = UNNAMED, given
        if name in found:
            raise DataError(
                f"expected models with different names, found {name} twice; "
                "call it so: --model emotions=FOLDER --model reviews=FOLDER"
            )
        found[name] = folder
    return found


def check_name(name: str) -> None:
    """Refuse a name that could not stand in a URL as it is.

    Raises:
        DataError: It has other characters than Latin letters, digits, `_`, `.` and `-`, or over 64.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            "expected the name of a model (up to 64 Latin letters, digits, _ . and -, a letter or "
            f"a digit first), found {name!r:.80}"
        )
