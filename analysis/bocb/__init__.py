"""The measures of arXiv:2410.06373 on any grid, with the uncertainty that the paper leaves out; its claims, checked."""
