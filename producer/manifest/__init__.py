"""The YAML file a person writes, read and checked with the place of everything that is wrong in it."""
