"""A version for many boards: brought to them in waves that halt by themselves, and seen on one screen."""
