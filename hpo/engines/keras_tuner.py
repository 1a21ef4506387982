"""The engine `keras-tuner`: a chief and workers on any number of hosts."""

from __future__ import annotations

from hpo.engines.base_fleet import FleetEngine


class KerasTunerEngine(FleetEngine):
    """A chief and workers that speak KerasTuner's distributed protocol."""

    name = "keras-tuner"


ENGINE = KerasTunerEngine()
