"""Findings in words, as one value, which the first screen, the terminal and `metrics.json` all say."""
