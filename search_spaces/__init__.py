"""One YAML file per optimizer: the ranges it is tuned over, its published default, and where they come from."""
