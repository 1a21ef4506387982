"""Prints what opens a run's chief on Kubernetes, as a Secret: ``python -m cluster.secret ID``.

Its token file, with the token and the chief's certificate, is for chief and workers; the key
is for the chief alone. Made anew at each call: apply it once a run, before the run begins.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from hpo import tls, token_file
from hpo.errors import TuneFleetError
from hpo.run import check_id


def secret_of(run_id: str) -> dict[str, object]:
    """The manifest of a new Secret for the run ``run_id``; UsageError where it is no id."""
    key, certificate = tls.make()
    opening = token_file.Secret(token_file.new_token(), certificate)
    labels = {"app.kubernetes.io/name": "tunefleet", "app.kubernetes.io/instance": run_id}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"tunefleet-{check_id(run_id)}", "labels": labels},
        # Somebody who replaces it in mid-search would lock every worker out.
        "immutable": True,
        "stringData": {
            "token": token_file.to_text(opening),
            "tls.crt": certificate,
            "tls.key": key,
        },
    }


def main(arguments: Sequence[str]) -> int:
    """Prints the Secret as JSON, which is YAML too."""
    parser = argparse.ArgumentParser(prog="python -m cluster.secret", description=__doc__)
    parser.add_argument("id", metavar="ID", help="the run's id, as in the overlay's instance.yaml")
    try:
        print(json.dumps(secret_of(parser.parse_args(arguments).id), indent=2))
    except TuneFleetError as error:
        print(f"cluster.secret: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
