"""The small world of the built-in model `shapes`: its prompts, its pictures, and an eye that reads them."""
