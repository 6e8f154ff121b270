"""The files that requests name by their hashes: pictures, masks, latents, adapters."""
