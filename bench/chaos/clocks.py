"""Wall clocks that can be set: each part has one of its own, by a library that is preloaded."""

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")
COMPILER = shutil.which("cc")
WANTED = "it needs a C compiler: apt-get install gcc"


class Clocks:
    """Those of the parts that are started with the `env` of their names.

    Not by libfaketime: with the monotonic clock left alone, as setting a clock does, its 0.9.10
    has every `time.sleep` of Python 3.11 fail.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._library = folder, folder / "clock.so"
        build = [COMPILER or "cc", "-shared", "-fPIC", "-O1", "-o", str(self._library)]
        subprocess.run([*build, str(_SOURCE)], check=True)

    def env(self, name: str) -> dict[str, str]:
        """For a process and all that it starts."""
        self._file(name).write_bytes(struct.pack("q", 0))
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._file(name))}

    def set(self, name: str, ahead: float) -> None:
        """So many seconds ahead of the machine's, from now on."""
        with self._file(name).open("r+b") as file:  # in its place: it is mapped
            file.write(struct.pack("q", round(ahead)))

    def _file(self, name: str) -> Path:
        return self._folder / name
