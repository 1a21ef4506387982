"""In which numbers a Keras model computes, and which processors are made for them."""

from __future__ import annotations

import pathlib

from hpo.errors import UsageError
from hpo.registry import suggest

DEFAULT = "float32"
# Keras's policies, with the flags of which a processor without a GPU needs one: others
# compute the same in software, many times slower.
_FLAGS = {
    DEFAULT: (),
    "mixed_bfloat16": ("avx512_bf16", "amx_bf16"),
    "mixed_float16": ("avx512_fp16", "amx_fp16"),
}
CHOICES = tuple(_FLAGS)
_CPUINFO = pathlib.Path("/proc/cpuinfo")


def parse(text: str) -> str:
    """``text`` itself where it names a precision; raises UsageError."""
    if text not in _FLAGS:
        raise UsageError(f"--set precision={text}: {suggest(text, _FLAGS)}")
    return text


def check_here(name: str | None, has_gpu: bool, cpuinfo: pathlib.Path = _CPUINFO) -> None:
    """Raises UsageError where neither a GPU nor this host's processor is made for it."""
    flags = _FLAGS[name or DEFAULT]
    if not flags or has_gpu:
        return
    found = cpuinfo.read_text().split() if cpuinfo.exists() else []
    if not set(flags) & set(found):
        raise UsageError(
            f"--set precision={name} needs a GPU, or a processor with {' or '.join(flags)}, and "
            "this host has neither: leave it out"
        )


def in_record(device: str, name: str | None) -> str:
    """How a worker's ``device`` is recorded: with the precision where it is not the usual one."""
    return device if name in (None, DEFAULT) else f"{device} {name}"


def apply(name: str | None) -> None:
    """Lets the models that are built from now on in this process compute like that."""
    import keras

    if name is not None:
        keras.config.set_dtype_policy(name)
