"""Whoever submits: at a steady rate, repeating each request until it is accepted."""

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import urllib3

TASK = "bench.chaos.tasks.work"
_THREADS = 24
_TIMEOUT = 3.0
_PAUSE = 0.25


class Client:
    """Submits `jobs` jobs, `rate` a second, and writes down each id that was accepted."""

    def __init__(
        self, urls: Sequence[str], headers: Mapping[str, str], accepted: Path, ms: int
    ) -> None:
        self._urls, self._headers, self._ms = urls, headers, ms
        self._file = accepted.open("a")
        self._http = urllib3.PoolManager(maxsize=_THREADS, retries=False, timeout=_TIMEOUT)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self.submitted = 0
        #: Each id and when it was accepted.
        self.accepted: list[tuple[str, datetime]] = []
        #: What became of each request: its status, or why there was none.
        self.answers: Counter[str] = Counter()

    def start(self, jobs: int, rate: float) -> None:
        turns, began = itertools.count(), time.monotonic()

        def work(preferred: int) -> None:
            while (turn := next(turns)) < jobs and not self._stopped.is_set():
                self._stopped.wait(began + turn / rate - time.monotonic())
                preferred = self._submit(preferred)

        self._threads = [
            threading.Thread(target=work, args=[number], daemon=True) for number in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """What is not accepted by now never will be."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._file.close()

    def _submit(self, preferred: int) -> int:
        """Until it is accepted; the web that took it."""
        key = str(uuid.uuid4())
        with self._lock:
            self.submitted += 1
        while not self._stopped.is_set():
            answer = self._post(self._urls[preferred % len(self._urls)], key)
            with self._lock:
                self.answers[answer] += 1
            if answer == "202":
                break
            preferred += 1
            self._stopped.wait(_PAUSE)
        return preferred

    def _post(self, url: str, key: str) -> str:
        body = {"task": TASK, "kwargs": {"ms": self._ms}}
        headers = {**self._headers, "Idempotency-Key": key}
        try:
            answer = self._http.request("POST", f"{url}/api/jobs", json=body, headers=headers)
            if answer.status == 202:
                self._accept(str(answer.json()["id"]))
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            return type(error).__name__
        return str(answer.status)

    def _accept(self, job_id: str) -> None:
        with self._lock:
            self.accepted.append((job_id, datetime.now(UTC)))
            self._file.write(f"{job_id}\n")
            self._file.flush()
