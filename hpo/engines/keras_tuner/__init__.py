"""KerasTuner's chief and workers, over its own gRPC protocol."""
