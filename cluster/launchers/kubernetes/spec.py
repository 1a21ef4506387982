"""What was asked of a cluster: names, sizes and the image, checked before anything is sent."""

from __future__ import annotations

import argparse
import dataclasses
import re

from cluster.spec import DEFAULT_WORKERS
from hpo import env
from hpo.errors import UsageError

DEFAULT_IMAGE = "tunefleet:1"
GPU = "nvidia.com/gpu"
_CORES = re.compile(r"(?=.*[1-9])([0-9]+(\.[0-9]+)?|[0-9]+m)")
# A cluster takes "6" too, for six bytes, and no container ever starts.
_BYTES = re.compile(r"(?=.*[1-9])([0-9]+(\.[0-9]+)?[MGT]i?|[0-9]{4,}(k|Ki)|[0-9]{7,})")
_IMAGE = re.compile(r"[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?")
_RESOURCE = re.compile(r"[a-z0-9.-]+/[\w.-]+")
_STORE = re.compile(r"(s3|gs|abfs|abfss|file)://[^/\s]\S*|file:///\S+")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclasses.dataclass(frozen=True)
class KubernetesSpec:
    """How many workers with what each; None leaves a number to the base.

    ``cpus``, ``memory`` (of a worker) and ``storage`` (of the run) are quantities as Kubernetes
    writes them. ``image`` is the chief's, ``worker_image`` the workers'; ``data_dir`` is a folder
    in them.
    """

    workers: int = DEFAULT_WORKERS
    gpus: int = 0
    gpu_resource: str = GPU
    image: str = DEFAULT_IMAGE
    worker_image: str = DEFAULT_IMAGE
    pull_policy: str | None = None
    cpus: str | None = None
    memory: str | None = None
    storage: str | None = None
    storage_class: str | None = None
    queue: str | None = None
    priority: str | None = None
    spot: bool = False
    monitoring: bool = False
    store: str | None = None
    grace_s: float = env.DEFAULT_GRACE_S
    lease_s: float = 30.0
    data_dir: str | None = None

    @classmethod
    def from_options(cls, args: argparse.Namespace) -> KubernetesSpec:
        """The spec that was typed; UsageError where a part of it cannot be."""
        for option, pattern, right in _FORMS:
            typed = getattr(args, option)
            if typed is not None and not pattern.fullmatch(typed):
                raise UsageError(f"--{option.replace('_', '-')} {typed!r}: give {right}")
        gpus = int(args.gpus_per_worker or 0)
        if gpus != (args.gpus_per_worker or 0):
            raise UsageError(
                f"--gpus-per-worker {args.gpus_per_worker:g}: a pod has whole GPUs; "
                "see --gpu-resource for slices and shares of one"
            )
        image = args.image or DEFAULT_IMAGE
        return cls(
            workers=args.workers or DEFAULT_WORKERS,
            gpus=gpus,
            gpu_resource=args.gpu_resource or GPU,
            image=image,
            worker_image=args.worker_image or (_for_gpus(image) if gpus else image),
            pull_policy=args.pull_policy,
            cpus=args.cpus,
            memory=args.memory,
            storage=args.storage,
            storage_class=args.storage_class,
            queue=args.queue,
            priority=args.priority,
            spot=args.spot,
            monitoring=args.monitoring,
            store=args.store,
            grace_s=env.grace_s() if args.grace is None else args.grace,
            lease_s=getattr(args, "lease", None) or cls.lease_s,
            data_dir=None if args.data_dir is None else str(args.data_dir),
        )


_FORMS = (
    ("cpus", _CORES, "a quantity such as 2 or 500m"),
    ("memory", _BYTES, "a quantity such as 6Gi"),
    ("storage", _BYTES, "a quantity such as 20Gi"),
    ("image", _IMAGE, "an image such as registry.example/tunefleet:1"),
    ("worker_image", _IMAGE, "an image such as registry.example/tunefleet-gpu:1"),
    ("gpu_resource", _RESOURCE, "a resource's name such as nvidia.com/gpu"),
    ("storage_class", _NAME, "the name of a StorageClass"),
    ("store", _STORE, "a URI such as s3://BUCKET/PREFIX, gs://... or abfs://..."),
    ("queue", _NAME, "the name of a LocalQueue"),
    ("priority", _NAME, "the name of a PriorityClass"),
)


def _for_gpus(image: str) -> str:
    """The name of the image with the CUDA libraries that stands beside ``image``."""
    # A registry may have a port, so only the last part is looked at.
    path, slash, last = image.rpartition("/")
    name, colon, tag = last.partition(":")
    return f"{path}{slash}{name}-gpu{colon}{tag}"
