"""Results: schema of report.json, answer, report, plots, comparison."""
