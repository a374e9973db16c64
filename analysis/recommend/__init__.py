"""What to use: optimizer, learning rate and weight decay, for a backbone or for any."""
