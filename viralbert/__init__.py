"""The product behind the `viralbert` command.

Moments, serving, training, archives, and the course's runner.
"""
