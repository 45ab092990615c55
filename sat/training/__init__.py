"""Augmentation, forward passes, losses and the masked autoencoder."""
