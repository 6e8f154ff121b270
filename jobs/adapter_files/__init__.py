"""What files of LoRAs, embeddings and IP-Adapters hold, by their headers alone, and which models take it."""
