"""Environment variables by which a command tells the processes that it starts where to compute."""

from __future__ import annotations

DEVICE = "VIRALBERT_DEVICE"
PRECISION = "VIRALBERT_PRECISION"
