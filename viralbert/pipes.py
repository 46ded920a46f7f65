"""What somebody has named to be read once: a file, or a pipe of the shell."""

from __future__ import annotations

import stat
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import BinaryIO

from viralbert_utils.base.errors import DataError

PATIENCE_S = 10.0  # that a pipe may lack somebody who writes to it


def opened(path: Path) -> BinaryIO:
    """What somebody has named, to be read once from its beginning: a file, or a pipe such as
    `/dev/fd/63` of a shell.

    Raises:
        DataError: It is a device, or a pipe that nobody opens to write within `PATIENCE_S`.
        OSError: It cannot be opened.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # a folder has an error of its own
        return path.open("rb")
    if not stat.S_ISFIFO(mode):
        raise DataError(f"{path} is a device, which may have no end; expected a file or a pipe")
    answer: SimpleQueue[BinaryIO | OSError] = SimpleQueue()

    def wait() -> None:
        try:
            answer.put(path.open("rb"))
        except OSError as error:
            answer.put(error)

    # A thread, because opening a pipe waits for its other end, however long that takes.
    Thread(target=wait, daemon=True).start()
    try:
        file_or_error = answer.get(timeout=PATIENCE_S)
    except Empty:
        raise DataError(
            f"{path} is a pipe, and within {PATIENCE_S:g} s nobody has opened it to write; start "
            "what writes first"
        ) from None
    if isinstance(file_or_error, OSError):
        raise file_or_error
    return file_or_error
