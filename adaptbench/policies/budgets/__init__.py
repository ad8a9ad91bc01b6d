"""Rules that are made to meet a mean cost."""
