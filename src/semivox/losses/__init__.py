"""Losses and schedules as pure functions on tensors."""
