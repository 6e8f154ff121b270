"""What builds things the product ships; never imported by it."""
