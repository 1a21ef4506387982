"""What runs a namespace has, by what the cluster knows of them; none is started or asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster import tables
from cluster.launchers.kubernetes.applied import told_request
from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.render import CHIEF, COMPONENT, INSTANCE, NAME
from cluster.launchers.kubernetes.standing import Standing
from cluster.launchers.kubernetes.submission import request_of
from cluster.launchers.kubernetes.templates import Manifest
from cluster.launchers.outline import SHORT
from cluster.launchers.outline import outline as outline_of
from hpo.run import SearchRequest
from hpo.status import DONE, FAILED, RUNNING, STOPPED


def outline(run_id: str, chief: Manifest | None, request: SearchRequest | None) -> dict[str, Any]:
    """A status from what the cluster alone knows: no ledger was read, so nothing is counted."""
    standing = Standing(chief, None, ())
    ended = {"Complete": DONE, "Failed": FAILED}.get(standing.ended)
    state = ended or (STOPPED if chief is None or standing.suspended else RUNNING)
    return outline_of(run_id, state, request)


def list_runs(connection: Connection, scheme: str, owner: str, as_json: bool) -> int:
    """Prints the runs of a namespace by what their chiefs are; nothing of them is started."""
    chiefs = [
        made
        for made in connection.every(owner, f"{NAME}=tunefleet")
        if made["metadata"]["labels"].get(COMPONENT) == CHIEF
    ]
    chiefs.sort(key=lambda made: made["metadata"]["creationTimestamp"])
    found = [_short(made) for made in chiefs]
    if as_json:
        tables.print_json(found)
    elif found:
        rows = [(f"{scheme}://{connection.namespace}/{row['id']}", *_cells(row)) for row in found]
        tables.print_table(("run", "state", "study", "engine", "sampler"), rows)
    else:
        connection.namespace_labels()
        print(f"no runs in namespace {connection.namespace}")
    return 0


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield from (str(row[name] or "") for name in ("state", "study", "engine", "sampler"))


def _short(made: Manifest) -> dict[str, Any]:
    run_id = made["metadata"]["labels"][INSTANCE]
    whole = outline(run_id, made, request_of(made) or told_request(made))
    return {name: whole[name] for name in SHORT}
