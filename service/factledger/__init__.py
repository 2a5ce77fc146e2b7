"""factledger: an event-sourced ledger of attributed facts."""
