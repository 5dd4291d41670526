"""What runs on the board and lies in setup-board.pyz: standard library only, Python 3.8 and newer."""
