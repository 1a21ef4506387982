"""The verb `tensorboard`, which leads a port here to a pod's."""

from __future__ import annotations

import re
import signal
import urllib.request
from typing import Self

from tests.k8s.namespace import Namespace
from tests.support.cli_runs import PATIENCE_S, wait_until


def open_tensorboard(space: Namespace, handle: str) -> str:
    """What the page begins with that a browser would see."""
    with TensorBoard(space, handle) as shown:
        return shown.await_page()


class TensorBoard:
    """The verb of that name, which serves until it is ended."""

    def __init__(self, space: Namespace, handle: str) -> None:
        self._process = space.follow("tensorboard", handle, "--port", "0")
        assert self._process.stdout
        url = re.match(r"(http://127.0.0.1:\d+)/", line := self._process.stdout.readline())
        assert url, line + self._process.communicate()[0]
        self._url = url[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self.end()

    def page(self) -> str:
        """What its page begins with; "" where it does not answer."""
        try:
            with urllib.request.urlopen(self._url, timeout=PATIENCE_S) as answer:
                text: str = answer.read(200).decode()
                return text
        except OSError:
            return ""

    def await_page(self) -> str:
        """What its page begins with, once it answers."""

        def look() -> str:
            assert self._process.poll() is None, self._process.communicate()[0]
            return self.page()

        return str(wait_until(look, "TensorBoard's page", every_s=0.2))

    def end(self) -> str:
        """Ends it by Ctrl-C; answers what it said meanwhile."""
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=PATIENCE_S)
        assert self._process.returncode == 0, said
        return said
