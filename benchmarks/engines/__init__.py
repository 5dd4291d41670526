"""The engines that are timed: this project's runtime and the baselines to compare it with."""
