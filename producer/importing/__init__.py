"""Manifests from pictures that imagemill or another program made."""
