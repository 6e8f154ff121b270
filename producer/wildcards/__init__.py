"""Prompts with wildcards and alternatives, counted and drawn: the syntax of sd-dynamic-prompts."""
