"""Shared module of the ViralBERT course: one file per concept, see the README for the map."""

import warnings

# tqdm asks for notebook widgets. They would draw nothing in the rendered pages and need a script from outside there.
warnings.filterwarnings("ignore", message="IProgress not found")
