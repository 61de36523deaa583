"""A corpus build in a process of its own that is killed.

    python -m tests.data.corpus.child_shards TEXT OUT AT

AT: the file, counted from the first, at whose flushing to disk the process is killed: each is a
moment at which other files are there already.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from langue.data.corpus.builder import Building, build
from langue.data.corpus.split import SplitAssignment
from langue.text.read.documents import Reading, open_texts
from tests.tiny_tokenizer import byte_tokenizer


def run(text: Path, out: Path) -> dict[str, Any]:
    reading = Reading(document="line")
    texts = open_texts([text], reading, [])
    return build(
        Building(
            texts, byte_tokenizer(), reading, SplitAssignment(fraction=0.1, dedup=True), 20_000
        ),
        out,
    )


def main(text: str, out: str, at: str) -> None:
    left = int(at)
    flush = os.fsync

    def counted(handle: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(handle)

    os.fsync = counted
    run(Path(text), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
