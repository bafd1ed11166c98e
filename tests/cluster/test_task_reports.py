"""Tasks in any language: they report by ``PATCH`` with the token of a hand-over, at any worker."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import httpx2
import pytest

from tests._support.asgi_client import build_app, client
from tests._support.hand_over_cluster import Cluster, both_loops, run_cluster
from tests._support.scripted_server import ALICE
from upload_progress import (
    ErrorCode,
    ProgressTracker,
    Stage,
    StoreBusy,
    TransferRecord,
    UploadCancelled,
    UploadEnded,
    UploadProgress,
    UploadState,
)
from upload_progress._internals import internals_of
from upload_progress._model.api_types import StageReport, TaskReport

S = UploadState


async def report(
    cluster: Cluster, token: str, content: TaskReport, *, at: ProgressTracker | None = None
) -> UploadProgress:
    """Report about the upload at one of the workers."""
    return await internals_of(at or cluster.web).task_reports.add("up", token, content)


async def patch(tracker: ProgressTracker, token: str, content: object) -> httpx2.Response:
    """Send a report to the routes of *tracker*."""
    headers = {"authorization": f"Bearer {token}"}
    async with client(build_app(tracker), user=None) as http:
        return await http.patch("/uploads/up", json=content, headers=headers)


@both_loops
def test_task_reports_and_ends_an_upload(backend: str) -> None:
    async def main(cluster: Cluster) -> None:
        seen = list[UploadProgress]()

        async def watch() -> None:
            async for snapshot in cluster.other.watch("up", owner=ALICE):
                seen.append(snapshot)  # as they come

        token = await cluster.receive()
        await cluster.shown()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await anyio.sleep(1)
            for tracker, content in [
                (cluster.web, {"stage": {"name": "scanning", "done": 1, "total": 4}}),
                (cluster.task, {"stage": {"name": "scanning", "done": 9, "total": 4}}),
                (cluster.other, {"stored_bytes": 7}),
                (cluster.other, {"stage": None}),
                (cluster.web, {"state": "completed"}),
                (cluster.task, {"state": "completed"}),
            ]:
                answer = await patch(tracker, token, content)
                assert answer.status_code == 200
                await anyio.sleep(1)

        assert answer.json()["state"] == "completed"
        stages = [None, Stage("scanning", 1, 4), *([Stage("scanning", 4, 4)] * 2), None, None]
        assert [each.stage for each in seen] == stages
        assert [each.state for each in seen] == [S.PROCESSING] * 5 + [S.COMPLETED]
        assert {(each.attempt, each.bytes_transferred) for each in seen} == {(1, 10)}
        assert [each.stored_bytes for each in seen] == [None, None, None, 7, 7, 7]
        assert await cluster.shown() == seen[-1]

    run_cluster(main, backend)


@pytest.mark.parametrize(("content", "message"), [({"message": "a virus"}, "a virus"), ({}, "The")])
def test_task_fails_an_upload(content: dict[str, str], message: str) -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        await cluster.shown()
        assert (await patch(cluster.web, token, {"state": "failed", **content})).status_code == 200
        end = await cluster.shown()
        assert end.error is not None
        assert (end.state, end.error.code) == (S.FAILED, ErrorCode.REJECTED)
        assert end.error.message.startswith(message)
        with pytest.raises(UploadEnded):
            await report(cluster, token, TaskReport(state="completed"))
        again = await report(cluster, token, TaskReport(state="failed"))
        assert again == end

    run_cluster(main, "asyncio")


@both_loops
def test_task_that_is_silent_for_too_long_is_lost(backend: str) -> None:
    """Until it reports again: that is the next attempt."""

    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        await cluster.shown()
        await report(cluster, token, TaskReport(lease_seconds=100))
        await anyio.sleep(95)
        assert (await cluster.shown()).state is S.PROCESSING
        await report(cluster, token, TaskReport())
        await anyio.sleep(14)
        assert (await cluster.shown()).state is S.PROCESSING
        await anyio.sleep(5)
        lost = await cluster.shown()
        await report(cluster, token, TaskReport(stage=StageReport("scanning")), at=cluster.other)
        again = await cluster.shown()
        await report(cluster, token, TaskReport(state="completed"), at=cluster.task)
        end = await cluster.shown()

        assert lost.error is not None
        assert (lost.attempt, lost.state, lost.error.code) == (1, S.FAILED, ErrorCode.WORKER_LOST)
        assert (again.attempt, again.state, again.error) == (2, S.PROCESSING, None)
        assert again.stage == Stage("scanning")
        assert (end.attempt, end.state, end.bytes_transferred) == (2, S.COMPLETED, 10)

    run_cluster(main, backend)


def test_last_task_reports_by_whatever_way() -> None:
    """One of Python, one that reports by HTTP, and one of Python again."""

    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        async with cluster.task.resume(token):
            await report(cluster, token, TaskReport(lease_seconds=60))
            await report(cluster, token, TaskReport(stage=StageReport("scanning")))
            between = await cluster.shown()
            async with cluster.other.resume(token):
                pass
        end = await cluster.shown()
        assert (between.attempt, between.state, between.stage) == (
            2,
            S.PROCESSING,
            Stage("scanning"),
        )
        assert (end.attempt, end.state) == (3, S.COMPLETED)

    run_cluster(main, "asyncio")


def test_task_learns_that_the_owner_has_cancelled() -> None:
    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        await cluster.shown()
        await report(cluster, token, TaskReport())
        await cluster.other.cancel("up", owner=ALICE)
        answer = await patch(cluster.web, token, {})
        assert (answer.status_code, answer.json()["code"]) == (409, "upload_cancelled")
        with pytest.raises(UploadCancelled):
            await report(cluster, token, TaskReport(state="completed"))
        assert (await cluster.shown()).state is S.CANCELLED

    run_cluster(main, "asyncio")


def test_report_needs_the_token_of_the_upload() -> None:
    async def main(cluster: Cluster) -> None:
        app = build_app(cluster.web)
        async with cluster.web.track(owner=ALICE, upload_id="up") as upload:
            token = await upload.hand_over()
            early = await patch(cluster.web, token, {})
        await cluster.shown()
        async with cluster.web.track(owner=ALICE, upload_id="other") as upload:
            other = await upload.hand_over()
        untracked = f"{other.partition('.')[0]}."
        answers = [early] + [await patch(cluster.web, each, {}) for each in (other, untracked)]
        assert [each.status_code for each in answers] == [404] * 3
        assert len({each.content for each in answers}) == 1
        for header in ({}, {"authorization": "Bearer no"}, {"authorization": f"Basic {token}"}):
            async with client(app, user=None, headers=header) as http:
                refused = await http.patch("/uploads/up", json={})
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
            assert refused.headers["www-authenticate"].startswith("Bearer")
        invalid = await patch(cluster.web, token, {"state": "paused"})
        assert invalid.status_code == 422
        assert (await cluster.shown()).state is S.PROCESSING

    run_cluster(main, "asyncio")


@pytest.mark.parametrize("times", [1, 5])
def test_report_that_meets_another_one_is_repeated(times: int) -> None:
    """Up to five times: then the worker is too busy."""

    async def main(cluster: Cluster) -> None:
        token = await cluster.receive()
        await cluster.shown()
        save, left = cluster.connection.save, list(range(times))

        async def save_late(records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
            if left and records[0].upload_id == "up":
                left.pop()
                await report(cluster, token, TaskReport(stage=StageReport("another")))
            return await save(records)

        cluster.connection.save = save_late  # type: ignore[method-assign]  # meets another report
        ours = TaskReport(stage=StageReport("ours"))
        if times == 1:
            await report(cluster, token, ours, at=cluster.task)
        else:
            with pytest.raises(StoreBusy):
                await report(cluster, token, ours, at=cluster.task)
        assert (await cluster.shown()).stage == Stage("ours" if times == 1 else "another")

    run_cluster(main, "asyncio")
