"""How a shard lies in an output folder: as a folder of files, or as a tar with its parquet."""
