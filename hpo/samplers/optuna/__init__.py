"""Optuna's samplers, asked and told from the ledger's records."""
