"""The report as a page: words, sections, plots as values, and their drawing."""
