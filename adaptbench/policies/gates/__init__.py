"""Small learned models that decide at each node from what it shows."""
