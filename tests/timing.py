"""What tests do about time: wait for a state, never for a time, and compare costs, never with a
clock on the wall."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

HANG_S = 60.0  # no test is about it: it only ends what would otherwise wait for ever
MOST = 2.5  # times the cost for twice the input: a line has 2, a square has 4
MOST_OF_FOUR = 9  # times the cost for four times the input: a line has 4, a square has 16
REPETITIONS = 4  # of each measurement; the least counts, since other work on the machine only adds
ROUNDS = 3  # so often is measured what looks slow

Input = TypeVar("Input")


def until(condition: Callable[[], object], hang_s: float = HANG_S) -> None:
    """Wait until something is the case."""
    end = time.monotonic() + hang_s
    while not condition():
        assert time.monotonic() < end, f"waited {hang_s:g} s in vain"
        time.sleep(0.01)


def seconds(call: Callable[[Input], object], given: Input) -> float:
    """Of processor time, in this process alone."""
    began = time.process_time()
    call(given)
    return time.process_time() - began


def grows(
    call: Callable[[Input], object], make: Callable[[int], Input], n: int, short_s: float = 0.01
) -> str:
    """What twice the input costs more than twice, in words; empty if it does not.

    Args:
        call: What is measured.
        make: Its input, of a length.
        n: The shorter length; the other one is twice as long.
        short_s: What takes less time for the longer input is not measured: chance would decide.
    """
    once, twice = make(n), make(2 * n)
    short = long = math.inf
    for _ in range(ROUNDS):
        for _ in range(REPETITIONS):  # in turn, so that a slow moment of the machine meets both
            long = min(long, seconds(call, twice))
            if long < short_s:
                return ""
            short = min(short, seconds(call, once))
        if long <= MOST * short:
            return ""
    # Where twice the input no longer fits a cache of the processor, a line costs three times once.
    # A square goes on growing.
    fourfold = make(4 * n)
    longest = min(seconds(call, fourfold) for _ in range(REPETITIONS))
    if longest <= MOST_OF_FOUR * short:
        return ""
    return f"{n}: {short:.3f} s, {2 * n}: {long:.3f} s, {4 * n}: {longest:.3f} s"
