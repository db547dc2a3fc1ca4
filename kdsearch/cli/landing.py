"""The first step of a submitted job, on the head of the cluster: `python -m kdsearch.cli.landing search kd …`.

What travelled lies in a folder of Ray's that goes with the cluster. It is put beside the runs, where all nodes see it
and where it is found when the run is resumed; there the command then runs.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from kdsearch.cli.jobs import FILES

SUBMITTED = ".submitted"


def main() -> None:
    """Become `python -m kdsearch …`: signals that end the job reach the search itself."""
    arguments = sys.argv[1:]
    storage = os.environ.get("KDSEARCH_STORAGE")
    if not storage:
        sys.exit(_error("the cluster's KDSEARCH_STORAGE is not set: submit with --storage, a folder all nodes see"))
    if arguments[0].startswith(FILES):
        digest = arguments.pop(0).removeprefix(FILES)
        if "://" not in storage:
            os.chdir(keep(Path.cwd(), Path(storage) / SUBMITTED / digest))
    os.execv(sys.executable, [sys.executable, "-m", "kdsearch", *arguments])


def keep(source: Path, folder: Path) -> Path:
    """A copy of `source` as `folder`, whole or not at all; one that is there already has the same content."""
    if not folder.is_dir():
        part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        shutil.copytree(source, part, ignore=shutil.ignore_patterns("__pycache__"))
        try:
            part.rename(folder)
        except OSError:  # a job with the same files was faster
            shutil.rmtree(part)
    return folder


def _error(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
