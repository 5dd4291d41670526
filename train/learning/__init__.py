"""Training: data loading, augmentation, objectives and the training loop."""
