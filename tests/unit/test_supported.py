"""What goes together: one table, wherever it is shown."""

from __future__ import annotations

import pytest

from cluster.checkup import supported
from hpo.engines.base import check_supported, load_engine
from hpo.errors import UsageError
from hpo.registry import ENGINES, SAMPLERS
from tools.supported import PAGE, page


def test_the_page_shows_the_table_of_the_registry() -> None:
    text = PAGE.read_text()
    assert page(text) == text, "run `python -m tools.supported`"


@pytest.mark.parametrize("engine", list(ENGINES))
def test_what_is_refused_is_what_the_table_lacks(engine: str) -> None:
    table = supported()[engine]
    assert any(table.values())
    for sampler in SAMPLERS:
        for pruner in table[sampler]:
            check_supported(load_engine(engine), sampler, pruner)
        if not table[sampler]:
            with pytest.raises(UsageError, match="it supports random, grid"):
                check_supported(load_engine(engine), sampler, "none")
