"""Metrics, evaluation of folders, statistics."""
