"""Several landscapes together: the value of further trials, and what transfers from one backbone to another."""
