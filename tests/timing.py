"""What tests do about time: wait for a state, never for a time, and compare costs, never with a
clock on the wall."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

HANG_S = 60.0  # no test is about it: it only ends what would otherwise wait for ever
# Costs are compared over eight times the input: a line has 8, a square has 64. The limits stand far
# from both, since other work on a busy machine may make one call two or three times as long.
WIDER = 8
SUSPECT = 12  # times the cost: measured once more with still longer input
MOST = 22  # times the cost: grows faster than the input
REPETITIONS = 3  # of each measurement; the least counts, since other work on the machine only adds
SHORT_S = 0.01  # what takes less is not measured: chance would decide
ROUNDS = 2  # so often is measured what looks slow

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
    call: Callable[[Input], object], make: Callable[[int], Input], n: int, short_s: float = SHORT_S
) -> str:
    """What grows faster than its input, in words; empty if it does not.

    Args:
        call: What is measured.
        make: Its input, of a length.
        n: What takes less than `short_s` for twice this length is not measured.
        short_s: Seconds of processor time.
    """
    longer, shorter = 2 * n, 2 * n // WIDER
    twice, part = make(longer), make(shorter)
    short = long = math.inf
    for _ in range(ROUNDS):
        for _ in range(REPETITIONS):  # in turn, so that a slow moment of the machine meets both
            long = min(long, seconds(call, twice))
            if long < short_s:
                return ""
            short = min(short, seconds(call, part))
        if long <= SUSPECT * short:
            return ""
    # Where the input no longer fits a cache of the processor, a line costs more than it should, and
    # a short call may end before other work interrupts it. A square goes on growing.
    widest = make(WIDER * longer)
    longest = math.inf
    for _ in range(REPETITIONS):
        longest = min(longest, seconds(call, widest))
        if longest <= MOST * long:
            return ""
    return f"{shorter}: {short:.4f} s, {longer}: {long:.3f} s, {WIDER * longer}: {longest:.3f} s"
