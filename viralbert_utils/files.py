"""Files written whole and told apart by their bytes, and the error for input that cannot be used.

The lowest room of the module: it needs the standard library only, so a service that answers does not carry the tables.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
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
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
