"""Viral moments: subtitles read, lines scored, windows ranked, results written and judged."""
