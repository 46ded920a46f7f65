"""Encoders: loading, pooling, and the one that comes with the course."""
