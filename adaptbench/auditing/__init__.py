"""The audit of anybody's adaptive net: checks, a run of the bench, figures, a bundle that others can verify."""
