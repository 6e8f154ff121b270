"""Work that is leased: renewed while it lasts, given back, and waiting for disk space."""
