"""One cell: the model of its landscape, and every number read off it."""
