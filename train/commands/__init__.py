"""What each training command does, as functions a notebook can call."""
