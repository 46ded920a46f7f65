"""YAML as it comes from people, read into plain values."""

from __future__ import annotations

from typing import Any

import yaml

from viralbert_utils.base.errors import DataError


def read_yaml(text: str, where: str) -> Any:
    """The value that a text in YAML holds; tags that would make objects of it are refused.

    Args:
        text: What to read.
        where: The place that the text comes from, for the message.

    Raises:
        DataError: The text is no YAML.
    """
    try:
        return yaml.safe_load(text)
    # A tag may promise what the value does not hold, and thousands of brackets are more than the
    # reader can nest.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(f"{where} is no YAML that can be read ({problem})") from None
