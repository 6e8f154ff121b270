"""Importing this imports every file of tests (`tests.collected`)."""

from tests.collected import collect

collect()
