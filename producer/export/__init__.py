"""Writes the pictures of an output in another form."""
