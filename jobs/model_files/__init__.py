"""What a model's files say of it before anything is loaded: headers, configurations, checkpoints, the hub."""
