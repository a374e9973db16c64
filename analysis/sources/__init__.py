"""Where trials come from: run folders, tables of one's own, published tables."""
