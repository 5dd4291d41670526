"""Worker processes: one instruction set per process."""
