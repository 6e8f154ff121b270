"""Example manifests; every one is loaded by a test."""
