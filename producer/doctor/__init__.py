"""Examines an output to its last byte, and repairs it."""
