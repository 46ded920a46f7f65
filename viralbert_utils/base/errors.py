"""The error for whatever a user can put right: a file, a table, a setting."""

from __future__ import annotations


class DataError(ValueError):
    """Input that cannot be used: the message says where, what was expected, and what to do."""
