"""What a training step sees: sampled and augmented patches in two streams."""
