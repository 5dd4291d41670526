"""The networks, and the checkpoint files they are saved in."""
