"""One worker process a GPU, kept alive."""
