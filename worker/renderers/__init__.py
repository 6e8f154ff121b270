"""What the engine renders with: one renderer for each kind of model, and how a model becomes one."""
