"""From trial records to what they say. Needs neither torch nor Ray; start at `bocb_tune.analysis.report.analyze`."""
