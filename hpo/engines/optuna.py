"""The engine `optuna`: a search on this host that Optuna's own tools can follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpo import address
from hpo.engines.base_fleet import FleetEngine
from hpo.errors import UsageError
from hpo.run import Run

if TYPE_CHECKING:
    from hpo.fleet.projection import Kind, Writer


class OptunaEngine(FleetEngine):
    """A chief and workers of this host; the chief keeps an Optuna study of the run."""

    name = "optuna"
    requires = ("optuna",)

    def projections(self) -> Sequence[Kind]:
        """The study, in an Optuna storage."""
        return (("the Optuna study", _mirror),)

    def check_place(self, host: str, insecure: bool, by_hand: bool) -> None:
        """Raises UsageError for what goes beyond this host, or lets others in."""
        advice = "use --engine keras-tuner for that"
        if by_hand:
            raise UsageError(f"engine optuna has no roles by hand, it starts all itself: {advice}")
        if insecure:
            raise UsageError(f"engine optuna takes no KerasTuner workers (--insecure): {advice}")
        if not address.is_loopback(host):
            raise UsageError(
                f"engine optuna runs on this host alone, and --host {host} is open to others: "
                f"{advice}"
            )

    def check_storage(self, url: str) -> None:
        """Raises UsageError where no Optuna storage is reached at ``url``."""
        from hpo.optuna_mirror import check_storage

        check_storage(url)


def _mirror(run: Run) -> Writer:
    # Optuna takes a second to import, which its thread has and the chief has not.
    from hpo.optuna_mirror import mirror

    return mirror(run)


ENGINE = OptunaEngine()
