"""What the public writers are made of."""
