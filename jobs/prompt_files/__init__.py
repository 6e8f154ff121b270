"""Files of prompts, read as a stream: a module a format, and what their rows may say."""
