"""Sources of trials: run folders, tables of one's own, published tables."""
