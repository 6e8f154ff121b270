"""Files of a bucket that a manifest names, read from copies on this machine."""
