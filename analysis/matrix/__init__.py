"""The matrix of cell values: coupling, failures, the order of the optimizers."""
