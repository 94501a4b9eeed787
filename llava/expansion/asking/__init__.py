"""Asking a teacher for what is missing: bounded, within a budget, every reply in a ledger. Knows nothing of rows."""
