"""Files written whole and told apart by their bytes, and the error for input that cannot be used.

The lowest room of the module: it needs the standard library only, so a service that answers does not carry the tables.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class DataError(ValueError):
    """Input that cannot be used; the message says where, what was expected, what came, and what to do."""


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path | str) -> str:
    """Hex digest of all files below a folder, their names included."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    lines = "".join(f"{path.relative_to(folder)} {sha256(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that it is either the old one or the new one, never half of it (temporary file, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode("utf-8") if isinstance(content, str) else content
    # Not a file of `tempfile`, which nobody else may read: this one gets the mode that any new file gets here.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(raw)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(target: Path | str, replace: bool = True) -> Iterator[Path]:
    """A new folder to fill, which becomes the target when the block ends: others see the old one or the new one.

    If the block raises, an old target stays as it was. Files and folders in it get the modes that any new one gets here
    (see umask), whatever the libraries that wrote them chose: a service often runs as another user.

    Args:
        target: Where the folder will stand; what stands there goes as a whole.
        replace: False keeps a target that another process has finished meanwhile, and drops the new folder.

    Raises:
        DataError: The target is a file.
    """
    target = Path(target)
    if target.is_file():
        raise DataError(f"{target} is a file; expected a folder, or a name that is free")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        yield new
        _set_usual_modes(new)
        try:
            if replace and target.exists():
                os.rename(target, old)
            os.rename(new, target)
        except BaseException as error:
            if old.exists() and not target.exists():
                os.rename(old, target)
            finished_elsewhere = not replace and isinstance(error, OSError) and target.is_dir()
            if not finished_elsewhere:
                raise


def _set_usual_modes(folder: Path) -> None:
    """Give everything in a folder that `mkdir` has made the mode that `mkdir` and `open` give here."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(mode if path.is_dir() else mode & 0o666)
