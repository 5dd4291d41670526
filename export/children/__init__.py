"""Worker processes: the one way in which export and benchmarks run work outside this process."""
