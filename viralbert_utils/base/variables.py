"""Names that two processes must agree on: environment variables by which a command says where to
compute, and the type of a value that a lesson records and the report reads."""

from __future__ import annotations

DEVICE = "VIRALBERT_DEVICE"
PRECISION = "VIRALBERT_PRECISION"
RECORD_MIME = "application/vnd.viralbert.record+json"
