"""How what a program says crosses the log of a Ray job, which is lines of text of everybody's."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Iterator
from typing import TextIO

# What a frame is: output, words to the person, a file's name and content, the end of a file,
# an exit status, and that a search has begun.
OUT, SAID, FILE, PART, STATUS, BEGUN = "out", "said", "file", "part", "status", "begun"
_FRAME = re.compile(r"\x1etunefleet ([a-z]+) ([A-Za-z0-9+/=]*)$")
# Ray hands on lines of any length, but in pieces of 20,000 characters.
CHUNK = 12 * 1024


@dataclasses.dataclass(frozen=True)
class Frame:
    """One thing that was said."""

    kind: str
    data: bytes


def write(stream: TextIO, kind: str, data: bytes = b"") -> None:
    """Says it, on a line of its own whatever was written there before."""
    parts = range(0, len(data), CHUNK) or (0,)
    lines = (base64.b64encode(data[start : start + CHUNK]).decode() for start in parts)
    stream.write("".join(f"\n\x1etunefleet {kind} {line}\n" for line in lines))
    stream.flush()


def parse(line: str) -> Frame | None:
    """The frame on a line of the log; None where there is none."""
    match = _FRAME.search(line.rstrip("\n"))
    return Frame(match[1], base64.b64decode(match[2])) if match else None


def lines(pieces: Iterator[str | None]) -> Iterator[str | None]:
    """Whole lines from pieces of a log; None, as it comes, where nothing was new for a while."""
    rest = ""
    for piece in pieces:
        if piece is None:
            yield None
            continue
        *whole, rest = (rest + piece).split("\n")
        yield from whole
    if rest:
        yield rest
