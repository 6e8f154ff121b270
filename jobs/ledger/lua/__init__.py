"""The Lua scripts of the ledger, one file per operation; `jobs.ledger.scripts` declares their arguments."""
