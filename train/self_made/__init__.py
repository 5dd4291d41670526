"""Fakes made from the training split's own photographs."""
