"""What may come out as a moment."""

from __future__ import annotations

from dataclasses import dataclass

from viralbert_utils.base.errors import DataError


@dataclass(frozen=True)
class Limits:
    """What may come out.

    A moment's length, padding included, lies in `min_s` .. `max_s`, or there is no moment.
    """

    min_s: float = 15.0
    max_s: float = 60.0
    max_gap_s: float = 4.0  # longest silence inside a moment
    max_overlap: float = 0.0  # how much of the shorter of two moments the other may cover, 0 .. 1
    n: int | None = None  # at most so many; None: one in two minutes, but at least 4 and at most 12
    min_score: float = 0.0  # windows with a lower probability are no moments

    def __post_init__(self) -> None:
        """Refuse limits that nothing can meet."""
        if not 0 < self.min_s <= self.max_s or (self.n is not None and self.n < 1):
            raise DataError(
                f"expected 0 < min_s <= max_s and n >= 1; found {self.min_s}, {self.max_s} and "
                f"{self.n}"
            )


DEFAULTS = Limits()
