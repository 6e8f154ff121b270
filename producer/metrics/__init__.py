"""What Prometheus is told of the mill, from the ledger."""
