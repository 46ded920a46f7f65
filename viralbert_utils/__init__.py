"""Shared module of the ViralBERT course: one file per concept, see the README for the map."""
