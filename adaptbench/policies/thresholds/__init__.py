"""A score of what the exits say, and a threshold for it at each exit."""
