"""The one thread that touches the model, what waits for it, and what a renderer must do."""
