"""Whether the nodes of this machine live: each holds a lock until its last process has ended.

A lock tells at once and for certain what a silent heartbeat tells late, whatever became of the
process: killed, or its whole machine restarted.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn

if sys.platform != "win32":
    import fcntl


def no_folder(var: Path, error: OSError) -> NoReturn:
    """Ends the process with one line."""
    why = f"{error.filename}: {error.strerror}"
    sys.exit(f"VAR_DIR = {str(var)!r}: expected a folder to read and write in ({why})")


def hold(var: Path, boot: str) -> IO[str] | None:
    """The lock of node `boot`, shared with every child that is forked while it is open.

    Raises OSError where `var` is no folder to write in.
    """
    if sys.platform == "win32":
        return None
    folder = var / "nodes"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    unseen = folder / f".{boot}"
    line = unseen.open("w")
    fcntl.flock(line, fcntl.LOCK_EX)
    unseen.rename(folder / boot)  # not before it is locked: it would be taken for one that ended
    return line


def ended(var: Path) -> Iterator[str]:
    """The boots of nodes that ended and have not been seen to, each while no one else sees to it.

    One is forgotten when the next is asked for, and comes again if the caller fails meanwhile.
    """
    if sys.platform == "win32":
        return
    for path in (var / "nodes").glob("[!.]*"):
        try:
            with path.open() as line:
                fcntl.flock(line, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    yield path.name
                    path.unlink(missing_ok=True)
                finally:  # a child that was forked meanwhile has it open as well
                    fcntl.flock(line, fcntl.LOCK_UN)
        except (BlockingIOError, FileNotFoundError):
            continue  # it lives, or another process is just seeing to it
