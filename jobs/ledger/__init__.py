"""Each job's exact state in Redis: keys, the scripts that change them, shards on the wire, the broker."""
