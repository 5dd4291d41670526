"""OpenVINO: the networks, compiled and run."""
