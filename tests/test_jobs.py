"""A job's way through the ledger, on a real worker."""

from pathlib import Path
from typing import Any

from tests.real import eventually


async def ended(client: Any, job_id: str) -> dict[str, Any]:
    async def final() -> dict[str, Any] | None:
        job: dict[str, Any] = await (await client.get(f"/api/jobs/{job_id}")).get_json()
        return job if job["state"] in ("succeeded", "failed", "cancelled") else None

    return await eventually(final)


async def submit(client: Any, task: str, **body: Any) -> dict[str, Any]:
    answer = await client.post("/api/jobs", json={"task": f"tests.sample_tasks.{task}", **body})
    assert answer.status_code == 202, await answer.get_data()
    job: dict[str, Any] = await answer.get_json()
    return job


async def test_a_job_runs_and_its_result_is_kept(client: Any, worker: Path) -> None:
    job = await submit(client, "add", args=[2], kwargs={"right": 3})
    assert (await ended(client, job["id"]))["result"] == 5
