"""The output folder: where shards lie, what is written about each image, and how a shard becomes whole."""
