"""Augmentation, losses, masked autoencoder and the two-chunk training step."""
