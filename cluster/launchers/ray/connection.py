"""A connection to a Ray cluster's head, by its dashboard's job interface."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pathlib
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from hpo.errors import PlaceError, UsageError, first_line

DEFAULT_PORT = 8265
# Ray's own names for where a dashboard is; they would go before an address that was typed.
_OF_RAY = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_ANSWER_S = 5.0
_IDLE_S = 1.0
# So many quiet seconds, and a head that follows a log is asked whether it is still there.
_QUIET = 10
# A head that has just started answers before the agent is there that starts its jobs.
_AGENT_S, _AGAIN_S = 60.0, 2.0
_NO_AGENT = "No available agent"
# All jobs run on the head, which has the runs, whatever Ray is told of drivers on other nodes.
_ON_THE_HEAD = {"node:__internal_head__": 0.001}
_ADDRESS = re.compile(r"(?:http://)?([\w.-]+)(?::([0-9]{1,5}))?/?")
_TOKEN = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file with the cluster's token"


def where(typed: str | None) -> str:
    """``HOST:PORT`` of a dashboard: as typed, as Ray's variable says, or of this machine.

    Raises UsageError for what is no such address.
    """
    text = typed or os.environ.get(_OF_RAY[0]) or f"127.0.0.1:{DEFAULT_PORT}"
    match = _ADDRESS.fullmatch(text)
    if not match or int(match[2] or 1) > 65535:
        raise UsageError(
            f"bad address {text!r}: give HOST:PORT of the head's dashboard, such as 127.0.0.1:8265"
        )
    return f"{match[1]}:{match[2] or DEFAULT_PORT}"


def is_open(address: str) -> bool:
    """Whether the dashboard at ``address`` answers to somebody without a token."""
    import requests

    try:
        answer = requests.get(f"http://{address}/api/version", timeout=_ANSWER_S)
    except requests.exceptions.RequestException as error:
        raise PlaceError(f"no head answers at {address}: {error}") from error
    return bool(answer.status_code == 200)


class Cluster:
    """A Ray cluster whose head answers, has the Ray that is here and takes our token.

    Raises PlaceError where nobody answers, UsageError for another version or token; every
    method raises PlaceError where the head is gone.
    """

    def __init__(self, address: str) -> None:
        self.where = address
        self._check_answers()
        for name in _OF_RAY:
            os.environ.pop(name, None)
        self._client = self._connect()
        self._check_version()

    @property
    def version(self) -> str:
        """The cluster's Ray."""
        return str(self._client.get_version_of_server())

    def submit(
        self,
        job_id: str,
        command: str,
        metadata: Mapping[str, str] | None = None,
        parcel: pathlib.Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> bool:
        """Starts a job with the files in ``parcel``, a zip; False where there is one of this id."""
        needs: dict[str, Any] = {"env_vars": dict(environment)} if environment else {}
        if parcel:
            needs["working_dir"] = str(parcel)
        deadline = time.monotonic() + _AGENT_S
        while True:
            try:
                with self._plainly():
                    self._client.submit_job(
                        entrypoint=command,
                        submission_id=job_id,
                        runtime_env=needs,
                        metadata=dict(metadata or {}),
                        entrypoint_resources=_ON_THE_HEAD,
                    )
                return True
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                if _NO_AGENT not in str(error) or time.monotonic() > deadline:
                    raise self._takes_none(str(error)) from error
            time.sleep(_AGAIN_S)

    def jobs(self) -> list[Any]:
        """Every job that the head remembers, as Ray's JobDetails."""
        with self._plainly():
            return list(self._client.list_jobs())

    def job(self, job_id: str) -> Any:
        """A job that the head remembers; PlaceError where it has forgotten it."""
        try:
            with self._plainly():
                return self._client.get_job_info(job_id)
        except RuntimeError as error:
            raise PlaceError(
                f"{self._named} no longer knows job {job_id}: was the head started anew? "
                "Go on with `launch.py resume`"
            ) from error

    def stop(self, job_id: str) -> None:
        """Asks a job to end."""
        with self._plainly(), contextlib.suppress(RuntimeError):
            self._client.stop_job(job_id)

    def delete(self, job_id: str) -> bool:
        """Lets the head forget a job; False where it has not ended yet."""
        try:
            with self._plainly():
                return bool(self._client.delete_job(job_id))
        except RuntimeError:
            return False

    def log(self, job_id: str) -> Iterator[str | None]:
        """A job's log in pieces, until the job has ended; None after each quiet second."""
        loop = asyncio.new_event_loop()
        pieces = self._client.tail_job_logs(job_id)
        try:
            yield from self._pieces(loop, pieces)
        finally:
            loop.run_until_complete(pieces.aclose())
            loop.close()

    def _pieces(
        self, loop: asyncio.AbstractEventLoop, pieces: AsyncIterator[str]
    ) -> Iterator[str | None]:
        quiet = 0
        upcoming: asyncio.Future[str] | None = None
        try:
            while True:
                upcoming = upcoming or asyncio.ensure_future(_next(pieces), loop=loop)
                done, _ = loop.run_until_complete(asyncio.wait({upcoming}, timeout=_IDLE_S))
                if not done:
                    quiet += 1
                    if quiet % _QUIET == 0:
                        self._check_answers()
                    yield None
                    continue
                quiet, ended = 0, upcoming
                upcoming = None
                try:
                    yield ended.result()
                except StopAsyncIteration:
                    return
                except Exception as error:  # aiohttp's and Ray's own
                    self._check_speaks()
                    raise PlaceError(f"the connection to {self._named} broke: {error}") from error
        finally:
            if upcoming is not None:
                upcoming.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    loop.run_until_complete(upcoming)

    @property
    def _named(self) -> str:
        return f"the Ray cluster at {self.where}"

    def _check_answers(self) -> None:
        host, _, port = self.where.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _ANSWER_S).close()
        except OSError as error:
            raise self._gone(error) from error

    def _check_speaks(self) -> None:
        """Raises where nobody says anything: what is about to end may take a connection still."""
        import requests

        try:
            requests.get(f"http://{self.where}/api/version", timeout=_ANSWER_S)
        except requests.exceptions.RequestException as error:
            raise self._gone(error) from error

    def _takes_none(self, why: str) -> PlaceError:
        advice = ""
        if _NO_AGENT in why:
            advice = (
                f" (for {_AGENT_S:.0f} s by now): if the head has not just started, see "
                "dashboard_agent.log in its session's logs"
            )
        return PlaceError(f"{self._named} takes no job: {last_words(why)}{advice}")

    def _gone(self, error: BaseException) -> PlaceError:
        why = getattr(error, "strerror", None) or first_line(error)
        return PlaceError(
            f"no head answers at {self.where} ({why}): it is gone or its port is not forwarded; "
            "`ray dashboard CLUSTER.yaml` leads one here"
        )

    def _connect(self) -> Any:
        try:
            from ray.job_submission import JobSubmissionClient
        except ImportError as error:
            raise UsageError(
                f"--on ray needs Ray's job client ({error}): install requirements.txt"
            ) from error
        for name in ("ray", *(f"ray.dashboard.modules.{m}" for m in ("dashboard_sdk", "job.sdk"))):
            logging.getLogger(name).setLevel(logging.ERROR)

        class Client(JobSubmissionClient):  # type: ignore[misc]
            """Ray's own, whose calls do not wait for ever for a head that went away."""

            def _do_request(self, *arguments: Any, **options: Any) -> Any:
                return super()._do_request(*arguments, **{"timeout": 60.0, **options})

            def get_version_of_server(self) -> str | None:
                version: str | None = self._server_ray_version
                return version

        with self._plainly():
            try:
                return Client(f"http://{self.where}")
            except (ConnectionError, RuntimeError) as error:
                self._check_answers()
                raise self._is_none() from error

    def _check_version(self) -> None:
        import ray

        if self.version != ray.__version__:
            raise UsageError(
                f"{self._named} has Ray {self.version} and this machine {ray.__version__}: "
                "install requirements.txt at both ends"
            )

    def _is_none(self) -> PlaceError:
        return PlaceError(
            f"what answers at {self.where} is no Ray dashboard: give its port, which is "
            f"{DEFAULT_PORT} where no other was chosen"
        )

    @contextlib.contextmanager
    def _plainly(self) -> Iterator[None]:
        """What Ray and its HTTP client raise, as what it means."""
        import ray
        import requests

        try:
            yield
        except ray.exceptions.AuthenticationError as error:
            lacks = "asks for a token" if "required" in str(error) else "refuses this token"
            raise UsageError(f"{self._named} {lacks}: {_TOKEN}") from error
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            raise self._gone(error) from error
        except ConnectionError as error:
            raise self._gone(error) from error
        except requests.exceptions.HTTPError as error:
            raise PlaceError(f"no Ray dashboard answers at {self.where}: {error}") from error
        except ValueError as error:
            # What answers is no JSON.
            raise self._is_none() from error


async def _next(pieces: AsyncIterator[str]) -> str:
    return await pieces.__anext__()


def last_words(text: str) -> str:
    """The last line of what Ray says of an error, which is the one that names it."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it does not say why"
