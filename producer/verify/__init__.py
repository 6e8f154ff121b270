"""Images of an output rendered again through the queue, and compared with what the output holds."""
