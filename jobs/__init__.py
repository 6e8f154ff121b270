"""What a job is: manifests, image requests, the ledger, the broker. No torch, no diffusers."""
