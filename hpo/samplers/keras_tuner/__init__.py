"""KerasTuner's own oracles as samplers, in a process of their own."""
