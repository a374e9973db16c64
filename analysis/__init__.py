"""From trial records to what they say. Needs neither torch nor Ray; start at `bocb_tune.analysis.report.analyze`.

Folders rest on one another in this order: sources, patterns, cell, matrix, tuning, recommend; `findings` gathers what
they say, once; checks and page are made from it.
"""
