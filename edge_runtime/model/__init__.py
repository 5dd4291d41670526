"""What a detector is on disk: contract, bundle, golden pictures, tuning profile."""
