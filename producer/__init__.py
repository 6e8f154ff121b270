"""Reads manifests, submits jobs, watches them. Never imports torch, never imports worker."""
