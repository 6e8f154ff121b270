"""What submitting a manifest would do, counted before anything is rendered."""
