"""Runs the demo."""

from benchmarks.demo.demo import main

main()
