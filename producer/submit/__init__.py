"""Brings a manifest's requests into the ledger; sends back what a job lacks; restores a lost job."""
