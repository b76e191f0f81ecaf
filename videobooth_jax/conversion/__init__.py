"""Published PyTorch weights to Flax parameters and back."""
