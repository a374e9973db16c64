"""One cell: the model of its landscape, and every number derived from it."""
