"""Analysis of trial records. Needs neither torch nor Ray; start at `bocb_tune.analysis.report.write`.

Folders rest on one another in this order: sources, patterns, landscape, cell, matrix, coupling, tuning, recommend;
`findings` gathers what they say, once; checks and page are made from it.
"""
