"""What runs on the workstation: packing, deploying, the twin and the virtual board."""
