"""Loading from the hub, quietly; without a network from its cache, or with an error at once.

Left to itself, the library asks a hub that is out of reach six times for each file, which takes
most of a minute. Nothing that is loaded here is reported or counted: the hub sees the requests for
the files, and no more.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path

TIMEOUT_S = 5.0  # for the one question whether the hub is there
REMEMBERED_S = 30.0  # for which its answer holds: a model is two loadings, tokenizer and weights

_log = logging.getLogger(__name__)
_answers: dict[str, tuple[float, str]] = {}  # endpoint -> time of the answer, and the answer


def from_pretrained(kind: Any, name: str, **options: Any) -> Any:
    """What `kind.from_pretrained` gives for a folder or for a name on the hub; see `loading`.

    Args:
        kind: A class of the transformers library.
        name: A folder, or a hub name such as `cointegrated/rubert-tiny2`.
        options: Further arguments of `from_pretrained`.
    """
    folder = own_path(name)
    with quiet(), loading(name):
        # Code that comes with a model never runs, and nobody is asked whether it may.
        return kind.from_pretrained(
            str(folder) if folder.is_dir() else name, trust_remote_code=False, **options
        )


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Load from the hub in the block; if it is out of reach, from its cache, with a warning.

    Args:
        name: What is loaded: a hub name, or a folder, which needs no hub.

    Raises:
        ConnectionError: The hub is out of reach, and the cache does not hold what was asked for.
        DataError: The name is a path, and there is no such folder.
    """
    folder = own_path(name)
    if name.startswith(("/", ".", "~")) and not folder.exists():
        near = next(parent for parent in folder.absolute().parents if parent.is_dir())
        raise DataError(
            f"no such folder: {name} (there is only {near}); expected one, or a name such as "
            "owner/name"
        )
    _report_nothing()
    reason = out_of_reach() if _is_hub_name(name) else ""
    if not reason:
        yield
        return
    try:
        with _offline():
            yield
    except Exception as error:  # the libraries have no common class for "not in the cache"
        problem = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".")
        raise ConnectionError(
            f"the hub cannot be reached ({reason}), and its cache holds no usable copy ({problem})"
        ) from error
    _log.warning(
        "the hub cannot be reached (%s): %s is the copy in its cache, which may be an older one",
        reason,
        name,
    )


def _report_nothing() -> None:
    """Switch off what the hub's libraries send beside their requests.

    `datasets` counts each loading with a request of its own. Both add to every request what this
    machine has installed and where it runs, by which the hub tells its users apart.
    """
    os.environ |= {"HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True
    if datasets := sys.modules.get("datasets"):
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False


def out_of_reach() -> str:
    """Why the hub cannot be reached; empty where it can, and where `HF_HUB_OFFLINE` is set."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return ""
    when, reason = _answers.get(constants.ENDPOINT, (-REMEMBERED_S, ""))
    if time.monotonic() - when < REMEMBERED_S:
        return reason
    answer: SimpleQueue[str] = SimpleQueue()
    # A thread, because the library's timeouts are those of each address, and looking up a name has
    # none.
    Thread(target=lambda: answer.put(_ask(constants.ENDPOINT)), daemon=True).start()
    try:
        reason = answer.get(timeout=TIMEOUT_S)
    except Empty:
        reason = f"no answer within {TIMEOUT_S:g} s"
    reason = reason and f"{constants.ENDPOINT}: {reason}"
    _answers[constants.ENDPOINT] = time.monotonic(), reason
    return reason


def _ask(endpoint: str) -> str:
    """One request through the library's own session, which knows the proxies."""
    from huggingface_hub import get_session

    try:
        status = get_session().head(endpoint, timeout=TIMEOUT_S, follow_redirects=False).status_code
    except (
        Exception
    ) as error:  # refused, no such name, a proxy without a network: they mean the same here
        return f"{type(error).__name__}: {error}"
    return (
        f"status {status}" if status in (502, 503, 504) else ""
    )  # what a proxy says of a hub that is not there


def _is_hub_name(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not own_path(name).is_dir()


@contextmanager
def _offline() -> Iterator[None]:
    """As `HF_HUB_OFFLINE=1` does, which the libraries read when they are imported."""
    from huggingface_hub import constants

    datasets: Any = sys.modules.get("datasets")
    readers = [constants, *([datasets.config] if datasets else [])]
    before = [reader.HF_HUB_OFFLINE for reader in readers]
    for reader in readers:
        reader.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for reader, value in zip(readers, before, strict=True):
            reader.HF_HUB_OFFLINE = value


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no report of missing weights as a model is read or written."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
