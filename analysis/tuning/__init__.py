"""Several landscapes together: what trials buy, and what carries over from one backbone to another."""
