"""What is written when nothing of a job is left to render."""
