"""Files written whole and told apart by their bytes, and the error for input that cannot be used.

The lowest room of the module: it needs the standard library only, so a service that answers does
not carry the tables.
"""

from __future__ import annotations

import ctypes
import glob
import hashlib
import logging
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from viralbert_utils.base.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
EXPORTED = "model.onnx"  # the file that tells an exported model's folder
SUMS = "SHA256SUMS"  # of a saved model, as `sha256sum -c` reads it
UNFINISHED = (
    ".unfinished"  # how the names of hidden files and folders end that are still being written
)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux' renameat2
_log = logging.getLogger("viralbert.files")


def checkout() -> Path | None:
    """The course's repository, if this module lies in one; `None` if it was installed by itself."""
    return ROOT if (ROOT / "notebooks").is_dir() and (ROOT / "profiles").is_dir() else None


def needed_checkout(what: str) -> Path:
    """The course's repository, for what cannot do without it.

    Args:
        what: The command or value that needs it, for the message.

    Raises:
        DataError: The package was installed by itself.
    """
    folder = checkout()
    if folder is None:
        raise DataError(
            f"{what} needs a checkout of the course's repository, with its notebooks and its data, "
            "and viralbert is installed here without one; clone the repository and use it there"
        )
    return folder


def own_path(path: Path | str) -> Path:
    """A path as somebody has given it, with `~` spelt out, as shells do and Python does not.

    Raises:
        DataError: It is empty, or begins with the `~name` of nobody here.
    """
    if not str(path):
        raise DataError(
            "expected a path, found an empty text; give a file or a folder (. is the one you are "
            "in)"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: {error}; give the path from / on") from None


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path | str) -> str:
    """Hex digest of all files below a folder, their names included."""
    folder = own_path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = "".join(f"{path.relative_to(folder)} {sha256(path)}\n" for path in files)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def write_sums(folder: Path) -> None:
    """Write the sha256 of every file below a folder into its `SHA256SUMS`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    lines = (f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def check_sums(folder: Path) -> None:
    """Refuse a folder whose files are not those that `write_sums` saw; without sums, warn.

    Raises:
        DataError: A file is damaged or missing, or is none (a pipe, a device).
    """
    check_plain(folder)
    if not (folder / SUMS).is_file():
        _log.warning(
            "%s has no %s, so nobody can tell whether a file in it is damaged; save it again",
            folder,
            SUMS,
        )
        return
    try:
        text = (folder / SUMS).read_text(encoding="utf-8", errors="surrogateescape")
        lines = [line.split("  ", 1) for line in text.splitlines()]
        expected = {name: digest for digest, name in lines}
    except ValueError as error:
        raise DataError(
            f"{folder / SUMS} is damaged ({error}); copy or save the model again"
        ) from None
    here = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    for name, digest in expected.items():
        if name not in here:
            raise DataError(
                f"{folder / name} is missing, {SUMS} there names it; copy or save the model again"
            )
        if sha256(here[name]) != digest:
            raise DataError(
                f"{here[name]} is damaged: its sha256 is not the one in {SUMS}; copy or save the "
                f"model again (if you have changed the file on purpose, delete {SUMS})"
            )


def check_there(path: Path, expected: str = "") -> None:
    """Refuse a path at which there is no file.

    Args:
        path: What somebody has named.
        expected: What the file should hold, for the message.

    Raises:
        DataError: Nothing is there, or it is a folder.
    """
    wanted = f"expected {expected}; " if expected else ""
    if path.is_dir():
        raise DataError(f"{path} is a folder; {wanted or 'expected a file; '}name a file in it")
    if not path.exists():
        raise DataError(
            f"no such file: {path}; {wanted}check its name and the folder that you are in"
        )


def check_plain(place: Path) -> None:
    """Refuse a pipe or a device, or a folder with one in it: reading it might never end.

    Raises:
        DataError: There is one.
    """
    for path in (place, *sorted(place.rglob("*"))):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise DataError(
                f"{path} is neither a file nor a folder (a pipe or a device); expected plain files "
                "only"
            )


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Be the only process of this machine that writes to a path: a second one waits.

    The first one may be killed at any moment: the lock goes with it. What it left unfinished in the
    folder is removed.

    Args:
        path: Need not be there yet. The lock itself lies in the folder for temporary files.
    """
    from filelock import FileLock, Timeout

    path = own_path(path).resolve()
    place = Path(tempfile.gettempdir(), f"viralbert-locks-{os.getuid()}")
    place.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(place / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning(
            "another process is writing to %s: this one waits until it has finished (Ctrl-C: no "
            "longer)",
            path,
        )
        lock.acquire()
    try:
        remove_unfinished(path)
        yield
    finally:
        lock.release()


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left half-written in a folder; only for whoever holds its lock.

    Args:
        folder: Where they wrote.
        name: The file or folder that they wrote; all if not given.
    """
    for path in folder.glob(f".{name}.*{UNFINISHED}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that it is either the old one or the new one, never half of it.

    Text is UTF-8. Where a name of a file is not in the system's encoding, Python has letters for it
    that UTF-8 lacks: they are written as JSON escapes them (`\\udcff`), so a name in JSON is read
    again as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with whole_file(path) as temporary:
        temporary.write_bytes(raw)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes the file when the block ends.

    Also after a power cut: the bytes are on the disk before the name is.
    """
    # Not a file of `tempfile`, which nobody else may read: this one gets the mode that any new file
    # gets here.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        try:
            yield temporary
        except Exception as error:
            _raise_if_full(path.parent, error)
            raise
        _to_disk(temporary)
        os.replace(temporary, path)
        _to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path | str) -> Iterator[Path]:
    """A new folder to fill, which becomes the target when the block ends.

    If the block raises, or the process is killed, an old target stays as it was. Files and folders
    in it get the modes that any new one gets here (see umask), whatever the libraries that wrote
    them chose: a service often runs as another user. A second process that writes the same folder
    waits for the first.

    Args:
        target: Where the folder will stand; what stands there goes as a whole.

    Raises:
        DataError: The target is a file.
    """
    target = own_path(target)
    if target.exists() and not target.is_dir():
        raise DataError(f"{target} is a file; expected a folder, or a name that is free")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target):
        _recover(target)
        prefix = f".{target.name}."
        with tempfile.TemporaryDirectory(
            UNFINISHED, prefix, target.parent, ignore_cleanup_errors=True
        ) as scratch:
            new = Path(scratch, "new")
            new.mkdir()
            try:
                yield new
            except Exception as error:
                _raise_if_full(target.parent, error)
                raise
            if (new / SUMS).is_file():
                write_sums(new)  # more may have come since
            _set_usual_modes(new)
            for path in (*new.rglob("*"), new):
                if not path.is_symlink():
                    _to_disk(path)
            _put(new, target, Path(scratch, "old"))
            _to_disk(target.parent)


def _put(new: Path, target: Path, old: Path) -> None:
    """Give a folder the name of the target; what stood there goes out of the way."""
    if not target.exists():
        os.rename(new, target)
    elif not _exchange(new, target):
        # Where the system cannot exchange two names, there is a moment without a target: `_recover`
        # sees to it.
        os.rename(target, old)
        try:
            os.rename(new, target)
        except BaseException:
            os.rename(old, target)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Give two paths each other's name in one step; whether the system can do that."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    return (
        rename is not None
        and rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0
    )


def _recover(target: Path) -> None:
    """Clear up after a killed process that wrote the target; only for whoever holds its lock."""
    name = glob.escape(target.name)
    if not target.exists():
        for old in target.parent.glob(f".{name}.*{UNFINISHED}/old"):
            os.rename(old, target)
            break
    remove_unfinished(target.parent, name)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_if_full(folder: Path, error: Exception) -> None:
    """Raise `OSError` if nothing can be written: each library tells a full disk in its words."""
    if not isinstance(error, OSError | DataError):
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(2**20))
            probe.flush()


def _set_usual_modes(folder: Path) -> None:
    """Give all in a folder that `mkdir` has made the modes that new files get here."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(mode if path.is_dir() else mode & 0o666)
