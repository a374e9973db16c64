"""What was found, as one value: the page's first screen, the terminal and `metrics.json` all say what stands here."""
