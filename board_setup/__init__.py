"""From a bare board to a running detector: standard library only, Python 3.8 and newer."""
