"""KerasTuner's chief and workers, over its own gRPC protocol."""

from __future__ import annotations

from hpo import env

# Before gRPC is loaded: it writes a line for each handshake that fails, to no end.
env.quieten_grpc()
