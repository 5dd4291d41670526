"""From a checkpoint to a bundle, measured as the board will compute it."""
