"""What runs on the workstation: kits, deployment, the board's twin and the virtual board."""
