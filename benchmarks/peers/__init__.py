"""Frozen naive implementations that ours is compared with; tests prove that they compute the same."""
