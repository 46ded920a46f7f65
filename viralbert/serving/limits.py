"""What a service takes on at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field, PositiveInt, ValidationError

from viralbert_utils.base.errors import DataError

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ServiceLimits(BaseModel, frozen=True, extra="forbid"):
    """What a service takes on.

    Beyond it come 413 (bytes), 422 (texts, chars, cues), 429 (bodies, requests) and 503
    (timeout_s).

    Attributes:
        bytes: Size of a request's body.
        bodies: Bytes of all bodies that come or are in hand, at once; never less than `bytes`.
        texts: Number of texts in one request.
        chars: Number of characters in one text.
        cues: Number of cues in one request.
        requests: Accepted and not yet answered, at once; and as many whose body comes.
        timeout_s: Seconds from a request's first byte to its answer.
        batch: Number of texts that are computed together.
        wait_s: Seconds that a text waits for others to be computed with.
    """

    bytes: PositiveInt = 2_000_000
    bodies: PositiveInt = 64_000_000
    texts: PositiveInt = 256
    chars: PositiveInt = 20_000
    cues: PositiveInt = 20_000
    requests: PositiveInt = 256
    timeout_s: Annotated[Seconds, Field(gt=0)] = 60.0
    batch: PositiveInt = 64
    wait_s: Seconds = 0.002

    @classmethod
    def parse(cls, settings: Sequence[str]) -> ServiceLimits:
        """Read `["requests=32", ...]`, as they come from a command line.

        Raises:
            DataError: A name is not known, or what follows it is no number that can be a limit.
        """
        values = {name: value for name, _, value in (one.partition("=") for one in settings)}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            name = str(problem["loc"][0])
            raise DataError(
                f"limit {name}={values[name]}: {problem['msg']}; expected NAME=NUMBER with a name "
                f"of {', '.join(cls.model_fields)}"
            ) from None


DEFAULTS = ServiceLimits()
