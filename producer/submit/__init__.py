"""Brings a manifest's requests into the ledger, and sends back or restores a job that is there."""
