"""The product behind the `viralbert` command: moments, serving, training, archives, and the
course's runner."""
