"""Renders image requests and writes them to disk. Never imports producer."""
