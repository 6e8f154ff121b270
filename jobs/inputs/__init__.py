"""The files that requests name: pictures, masks, latents; by their hashes, in a folder or in a bucket."""
