"""What runs on the board, packed as setup-board.pyz: standard library only, Python 3.8 and newer."""
