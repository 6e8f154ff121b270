"""What is known of diffusers' pipelines without diffusers: their arguments, their settings, their tasks."""
