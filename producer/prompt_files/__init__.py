"""Files of prompts, read as a stream: a module for each format, and what their rows may say."""
