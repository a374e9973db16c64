"""Recommendations: optimizer, learning rate and weight decay, for one backbone or for any."""
