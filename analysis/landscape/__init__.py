"""The landscape of one cell: its model, from trials to draws of the expected score."""
