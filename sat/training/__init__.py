"""Training: augmentation, forward passes, losses and the masked autoencoder."""
