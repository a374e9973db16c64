"""The report as a page: sections, plots as values, and their drawing."""
