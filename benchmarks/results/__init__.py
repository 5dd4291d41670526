"""Benchmark results: schema, report, plots, answer, comparison."""
