"""TensorBoard HParams: a run's ledger as event files, and a server for them."""
