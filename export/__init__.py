"""From a checkpoint to a bundle whose answers are known as the board will compute them."""
