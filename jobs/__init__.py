"""What producers and workers share: image requests, the ledger, the output, settings. No YAML, no torch."""
