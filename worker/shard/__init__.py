"""One claimed shard, from its requests to its commit."""
