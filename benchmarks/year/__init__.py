"""A simulated year at one door: generators change, the board notices, people review, the next model takes over."""
