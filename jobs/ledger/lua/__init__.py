"""The Lua scripts of the ledger, one file an operation; `jobs.ledger.ledger` runs them."""
