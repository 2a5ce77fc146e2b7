"""The HTTP service: the contract's routes over the ledgers, and nothing that a ledger itself decides."""
