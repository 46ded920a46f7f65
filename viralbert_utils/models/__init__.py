"""Classifiers on an encoder: their layers, their folders, their answers."""
