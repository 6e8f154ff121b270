"""The job's exact state in Redis: its keys, the scripts that change them, shards on the wire, the broker."""
