"""What the lessons of the ViralBERT course share: a room for each step, a concept a file."""

import warnings

# tqdm asks for notebook widgets. They would draw nothing in the rendered pages and need a script
# from outside there.
warnings.filterwarnings("ignore", message="IProgress not found")
