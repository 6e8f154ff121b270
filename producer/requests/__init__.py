"""A manifest's lines into image requests, with their seeds, grouped by size."""
