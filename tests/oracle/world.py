"""The system that the oracle judges: workers, their store and broker, requests and watchers.

All of it runs in virtual time, with the background work of the trackers. `World.run` does the steps
of a scenario; every snapshot is checked when it is shown. At the end, when all has settled, all
surfaces are compared with what the application has, and nothing may be left in the workers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from math import inf

import anyio
from anyio.abc import TaskGroup
from attrs import define, evolve, field

from tests._support.scripted_server import Message, Receive, Scope, Send
from tests._support.virtual_time import VirtualClock
from tests.oracle.applications import APPLICATIONS, Answer, Application, Exchange, Meaning, Plan
from tests.oracle.ledger import Cause, Fact, Ledger
from tests.oracle.steps import Cancel, Kind, Request, Scenario, Step, Watch
from tests.oracle.surfaces import ANN, Surface, Watcher, facts_of, text_of
from tests.oracle.system import Broker, SlowBroker, SlowStore, at_once
from upload_progress import (
    MemoryStore,
    ProgressTracker,
    StoreUnavailable,
    UploadEnded,
    UploadNotFound,
    UploadProgress,
    UploadState,
)
from upload_progress._internals import internals_of
from upload_progress._model.models import ErrorCode
from upload_progress.asgi import UploadProgressMiddleware, current_upload
from upload_progress.backends import MemoryPublisher
from upload_progress.connection import Connection
from upload_progress.identity import Identity
from upload_progress.interfaces import SessionStore

__all__ = ["World"]

S = UploadState
ACCEPTED = frozenset({Meaning.ACCEPTED, Meaning.COMPLETED})
EXCHANGE = "oracle.exchange"
UPLOAD_ID, FILENAME, GROUP = "up", "by-app.bin", "release"
FLUSH_SECONDS = 0.25
"""After this time a worker has stored what has happened, if the store is fast."""
SETTLE_SECONDS = 4.0
"""How long the checks wait before they look again at what has not settled."""
SETTLE_ROUNDS = 6
LAST_TIMER_SECONDS = 40.0
"""The last timer of an upload looks for a stall after 30 s."""


class Raised(Exception):
    """The exception of an application."""


@define(eq=False)
class Server:
    """The server of one request: gives the body to the application in chunks, and its end."""

    exchange: Exchange
    _rest: list[int] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Divide the body into chunks."""
        exchange = self.exchange
        breaks_at = exchange.breaks_at
        size = exchange.plan.size if breaks_at is None else breaks_at
        chunk = -(-size // exchange.step.chunks)
        self._rest += [min(chunk, size - at) for at in range(0, size, chunk)] if size else []

    async def receive(self) -> Message:
        """Return the next chunk, the end of the body, or a disconnect."""
        exchange = self.exchange
        await anyio.sleep(exchange.step.pace_seconds)
        if self._rest:
            size = self._rest.pop(0)
            exchange.received += size
            return {"type": "http.request", "body": bytes(size), "more_body": True}
        if exchange.breaks_at is not None:
            return {"type": "http.disconnect"}
        exchange.has_read_end = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        """Note the response."""
        if message["type"] == "http.response.start":
            self.exchange.status = message["status"]
            headers = dict(message["headers"])
            self.exchange.upload_id = headers.get(b"upload-id", b"").decode() or None


def authenticate(connection: Connection) -> Awaitable[Identity] | Identity | None:
    """Return the owner as the step of the request says."""
    exchange: Exchange = connection.scope[EXCHANGE]
    rule = exchange.step.authentication
    exchange.calls += 1
    if exchange.calls <= rule.refusals:
        return None
    if rule.after_seconds is not None:
        return _identify_later(exchange, rule.after_seconds)
    exchange.identified_at = anyio.current_time()
    return ANN


async def _identify_later(exchange: Exchange, seconds: float) -> Identity:
    await anyio.sleep(seconds)
    exchange.identified_at = anyio.current_time()
    return ANN


def leftovers(tracker: ProgressTracker) -> dict[str, int]:
    """Return how much a tracker keeps of uploads and subscriptions."""
    internals = internals_of(tracker)
    registry, flusher = internals.registry, internals.flusher
    return {
        "uploads": len(registry),
        "awaited owners": len(internals.admission.order),
        "owners": len(registry._owners),
        "places": sum(registry._open.values()),
        "awaited responses": len(registry._waiting),
        "reports": not flusher.is_idle,
        "ends": len(flusher._ended),
        "subscriptions": len(internals.hub),
        "timers": len(flusher.timers._wheel),
    }


@define(eq=False)
class World:
    """The workers, and what has happened to the upload.

    Attributes:
        scenario: What is done.
        store: The store of all workers.
        broker: The broker of all workers.
        ledger: What has happened.
        lines: What has happened, for people.
        trackers: One per worker.
        surfaces: One per kind of query and worker.
        watchers: All that have subscribed.
    """

    scenario: Scenario
    store: SessionStore = field(factory=lambda: MemoryStore(clock=VirtualClock()))
    broker: Broker = field(factory=MemoryPublisher)
    ledger: Ledger = field(init=False)
    lines: list[str] = field(factory=list, init=False)
    trackers: list[ProgressTracker] = field(init=False)
    surfaces: dict[tuple[str, int], Surface] = field(factory=dict, init=False)
    watchers: list[Watcher] = field(factory=list, init=False)
    _announced_id: str | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Create the workers and the application."""
        scenario = self.scenario
        has_id = scenario.has_id or scenario.protocol in {"plain", "concatenation"}
        is_announced = scenario.is_announced and scenario.protocol == "plain"
        application = APPLICATIONS[scenario.protocol](has_id, has_many_workers=scenario.workers > 1)
        self.ledger = Ledger(application, scenario.protocol, is_announced)
        store_seconds = sum(scenario.save_seconds) + scenario.load_seconds
        self.ledger.delay_seconds = 2 * (FLUSH_SECONDS + store_seconds + scenario.event_seconds)
        self.ledger.load_seconds = scenario.load_seconds
        store, broker = SlowStore(self.store, scenario), SlowBroker(self.broker, scenario)
        self.trackers = [
            ProgressTracker(store=store, publisher=broker, clock=VirtualClock())
            for _ in range(scenario.workers)
        ]
        # The order of their names decides what happens if times are equal.
        names = ("b", "a") if scenario.is_reversed else ("a", "b")
        for tracker, name in zip(self.trackers, names, strict=False):
            worker = internals_of(tracker).admission.worker
            worker._draw()
            worker._name = name

    @property
    def application(self) -> Application:
        """The application."""
        return self.ledger.application

    def tracker(self, worker: int) -> ProgressTracker:
        """Return the tracker of a worker, or of the only one."""
        return self.trackers[worker % len(self.trackers)]

    def trace(self, line: str) -> None:
        """Note what happened."""
        self.lines.append(f"{anyio.current_time():8.3f} {line}")

    def surface(self, name: str, worker: int) -> Surface:
        """Return where queries of that kind at that worker are checked."""
        key = (name, worker)
        if key not in self.surfaces:
            self.surfaces[key] = Surface(f"{name} at worker {worker}", self.ledger, self.trace)
        return self.surfaces[key]

    # Steps

    async def run(self) -> None:
        """Do all steps, and check what is shown."""
        async with AsyncExitStack() as stack:
            for tracker in self.trackers:
                await stack.enter_async_context(tracker.lifespan())
            async with anyio.create_task_group() as watching:
                if self.ledger.is_announced:
                    await self._announce()
                async with anyio.create_task_group() as requests:
                    for step in self.scenario.steps:
                        if self.scenario.stops_at_end and self.application.has_ended:
                            break
                        if not self.scenario.has_races:
                            await self._wait_for_the_other_worker(step)
                        await self._do(step, requests, watching)
                        await self._look()
                await self._settle()
                watching.cancel_scope.cancel()
            await self._check_leftovers()

    async def _announce(self) -> None:
        announced = await self.tracker(0).announce(owner=ANN, group=GROUP)
        self._announced_id = announced.upload_id

    async def _wait_for_the_other_worker(self, step: Step) -> None:
        """Wait until the worker of *step* knows what has happened at the other one."""
        while (  # noqa: ASYNC110  # time is virtual
            isinstance(step, Request | Cancel)
            and self.ledger.is_unknown(step.worker, anyio.current_time())
        ):
            await anyio.sleep(0.05)

    async def _do(self, step: Step, requests: TaskGroup, watching: TaskGroup) -> None:
        match step:
            case Request():
                await self._start(step, requests)
            case Cancel():
                await self._cancel(step)
            case Watch():
                self._watch(step, watching)
            case _:
                await anyio.sleep(step.seconds)

    async def _start(self, step: Request, requests: TaskGroup) -> None:
        """Send a request; return when the next step may begin."""
        self.application.is_busy = any(each.ended_at is None for each in self.ledger.exchanges)
        is_stray = step.kind is Kind.STRAY
        planned = self.application.stray if is_stray else self.application.plan(step)
        if planned is None:
            return
        plan = evolve(planned, session=self.application.sessions)
        number = len(self.ledger.exchanges) + 1
        exchange = Exchange(number, step, plan, anyio.current_time())
        self.ledger.exchanges.append(exchange)
        requests.start_soon(self._send, exchange)
        if step.gap_seconds is not None:
            await anyio.sleep(step.gap_seconds)
            return
        while exchange.ended_at is None:  # noqa: ASYNC110  # time is virtual
            await anyio.sleep(0.01)

    async def _cancel(self, step: Cancel) -> None:
        """Cancel the upload, as its owner."""
        upload_id, since = await self._known_id(), anyio.current_time()
        began_at = VirtualClock().time()
        if upload_id is None:
            return
        self.trace(f"the owner cancels at worker {step.worker}")
        try:
            shown = await self.tracker(step.worker).cancel(upload_id, owner=ANN)
        except (UploadNotFound, UploadEnded, StoreUnavailable) as error:
            self.trace(f"the owner is told {type(error).__name__}")
            return
        self.trace(f"the owner is told {text_of(shown)}")
        is_by_owner = shown.error and shown.error.code is ErrorCode.CANCELLED_BY_OWNER
        ended_at = shown.finished_at.timestamp() if shown.finished_at else 0.0
        if not is_by_owner or ended_at < began_at or self._is_another(upload_id):
            # It had ended before, or is another one.
            return
        now, worker = anyio.current_time(), step.worker
        fact = Fact(now, Cause.CANCELLED, since=since, worker=worker, sent=self._sent)
        self.ledger.facts.append(fact)

    def _is_another(self, upload_id: str) -> bool:
        """Return whether an id is that of a request which has not created the upload."""
        names = {
            fact.exchange.upload_id
            for fact in self.ledger.facts
            if fact.exchange and fact.answer and fact.answer.meaning in ACCEPTED
        }
        has_id = self.application.has_id or self.scenario.protocol == "plain"
        if not has_id and upload_id in self._redirected:
            return True
        is_named = upload_id in names or upload_id.startswith(f"{self.scenario.protocol}-")
        return self.application.is_created and not (has_id or is_named)

    @property
    def _redirected(self) -> set[str | None]:
        """The ids of creations that the client repeats elsewhere, where they get another id."""
        return {
            each.upload_id
            for each in self.ledger.exchanges
            if each.status == 307 and each.plan.kind is Kind.CREATE
        }

    def _watch(self, step: Watch, watching: TaskGroup) -> None:
        number = len(self.watchers) + 1
        upload_id = None if step.everything else self._named_id()
        what = "everything" if upload_id is None else upload_id
        name = f"watcher {number} of {what} at worker {step.worker}"
        surface = Surface(name, self.ledger, self.trace)
        misses_events = len(self.trackers) > 1 and self.scenario.lost_events > 0
        watcher = Watcher(self.tracker(step.worker), surface, upload_id, misses_events)
        self.watchers.append(watcher)
        watching.start_soon(watcher.run)

    def _named_id(self) -> str | None:
        """Return the id of the upload, if the client has named it or was told it."""
        if self._announced_id is not None:
            return self._announced_id
        if self.application.has_id:
            return UPLOAD_ID
        told = [each.upload_id for each in self.ledger.exchanges if each.upload_id is not None]
        return told[-1] if told else None

    async def _known_id(self) -> str | None:
        """Return the id of the upload, if it is named or listed."""
        named = self._named_id()
        if named is not None:
            return named
        listed = await self._list(0)
        return next(iter(listed), None)

    # Requests

    async def _send(self, exchange: Exchange) -> None:
        """Send a request through the middleware of its worker; note how it ends."""
        step, server = exchange.step, Server(exchange)
        tracker = self.tracker(step.worker)
        self.trace(f"#{exchange.number} {_text_of(exchange.plan)} at worker {step.worker}")
        middleware = UploadProgressMiddleware(
            self._respond, tracker=tracker, authenticate=authenticate, min_size_bytes=0
        )
        after = inf if step.cancelled_after is None else step.cancelled_after
        with anyio.move_on_after(after), suppress(Raised, ConnectionError):
            await middleware(self._scope(exchange), server.receive, server.send)
        self._note(exchange, Cause.STOPPED)
        exchange.ended_at = anyio.current_time()

    def _scope(self, exchange: Exchange) -> Scope:
        path, _, query = exchange.plan.path.partition("?")
        headers = {"host": "example.org", "upload-group": GROUP, **exchange.plan.headers}
        upload_id = self._announced_id or UPLOAD_ID
        headers |= {"upload-id": upload_id} if self.application.has_id else {}
        return {
            "type": "http",
            "http_version": "1.1",
            "method": exchange.plan.method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
            EXCHANGE: exchange,
        }

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be the application: read the body and respond as the step says."""
        exchange: Exchange = scope[EXCHANGE]
        step = exchange.step
        is_question = exchange.plan.kind is Kind.ASK
        if step.endpoint == "set" and not is_question:
            current_upload(scope).set(filename=FILENAME)
            exchange.set_at = anyio.current_time()
        # Who accepts bytes has read them; only a plain upload may be accepted early.
        is_early = step.is_early and (step.status != 0 or self.scenario.protocol == "plain")
        if not is_early:
            await self._read(exchange, receive)
        if step.endpoint == "fail" and not is_question:
            current_upload(scope).fail("not wanted")
            exchange.failed_at = anyio.current_time()
        await anyio.sleep(step.think_seconds)
        if step.status is None:
            self._note(exchange, Cause.RAISED)
            raise Raised
        exchange.is_stale = self.application.is_stale(exchange)
        answer = self.application.answer(exchange)
        self._note(exchange, Cause.ANSWERED, answer)
        with anyio.CancelScope(shield=True):
            headers = [(key.encode(), value.encode()) for key, value in answer.headers.items()]
            start = {"type": "http.response.start", "status": answer.status, "headers": headers}
            await send(start)
            await send({"type": "http.response.body", "body": answer.body})

    async def _read(self, exchange: Exchange, receive: Receive) -> None:
        message: Message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
        if message["type"] == "http.disconnect":
            exchange.is_stale = self.application.is_stale(exchange)
            if exchange.step.keeps_broken:
                self.application.keep_broken(exchange)
            self._note(exchange, Cause.BROKEN)
            raise ConnectionError

    def _note(self, exchange: Exchange, cause: Cause, answer: Answer | None = None) -> None:
        """Add how a request ended, unless that is known."""
        if self.ledger.fact_of(exchange) is None:
            exchange.is_stale = self.application.is_stale(exchange)
            now = anyio.current_time()
            self.ledger.facts.append(Fact(now, cause, exchange, answer, sent=self._sent))
            said = "" if answer is None else f" {answer.status} {answer.meaning}"
            self.trace(f"#{exchange.number} {cause}{said}")

    @property
    def _sent(self) -> int:
        return len(self.ledger.exchanges)

    # Checks

    async def _list(self, worker: int) -> dict[str, UploadProgress]:
        page = await self.tracker(worker).list(owner=ANN, states=set(UploadState))
        return {snapshot.upload_id: snapshot for snapshot in page.uploads}

    async def _look(self) -> None:
        """Ask each worker for all uploads, one by one and as a list; each answer is checked."""
        token = at_once.set(True)
        for worker in range(len(self.trackers)):
            await self._look_at(worker)
        at_once.reset(token)

    async def _look_at(self, worker: int) -> dict[str, UploadProgress]:
        listed = await self._list(worker)
        for snapshot in listed.values():
            self.surface("list", worker).show(snapshot)
        surface = self.surface("GET", worker)
        for upload_id in listed:
            try:
                surface.show(await self.tracker(worker).get(upload_id, owner=ANN))
            except UploadNotFound:
                surface.shown.pop(upload_id, None)
        return listed

    async def _settle(self) -> None:
        """Wait until nothing changes any more, and check what is shown then."""
        problems: list[str] = []
        for _ in range(SETTLE_ROUNDS):
            await anyio.sleep(SETTLE_SECONDS)
            problems = await self._problems()
            if not problems:
                return
        raise AssertionError("; ".join(problems))

    async def _problems(self) -> list[str]:
        """Return what is wrong at rest: every surface must show the same, and the truth."""
        workers = range(len(self.trackers))
        listed = [await self._look_at(worker) for worker in workers]
        problems = [f"{each} does not show what worker 0 lists" for each in self._differing(listed)]
        for watcher in self.watchers:
            problem = watcher.problem(listed[0])
            problems += [problem] if problem else []
        live = sum(tracker.statistics().live_uploads for tracker in self.trackers)
        problems += [f"{live} live uploads are left"] if live else []
        return problems + self._untruths(listed[0])

    def _differing(self, listed: Sequence[Mapping[str, UploadProgress]]) -> Iterator[str]:
        """Yield the names of the surfaces that do not show the same as the first list."""
        first = {upload_id: facts_of(each) for upload_id, each in listed[0].items()}
        for worker, snapshots in enumerate(listed):
            got = self.surface("GET", worker).shown
            surfaces = {
                "list": snapshots,
                "GET": {key: got[key] for key in snapshots if key in got},
            }
            for name, shown in surfaces.items():
                if {upload_id: facts_of(each) for upload_id, each in shown.items()} != first:
                    yield f"{name} at worker {worker}"

    def _untruths(self, listed: Mapping[str, UploadProgress]) -> list[str]:
        """Return what is not as the application has it."""
        expected = self.ledger.expectation()
        uploads, failed = self._uploads(listed)
        if len(uploads) > 1:
            return [f"one upload is shown as {len(uploads)}"]
        if not uploads and failed and expected.states & {S.FAILED, S.CANCELLED}:
            failed.sort(key=lambda each: (not expected.allows(each), each.filename != FILENAME))
            # The owner may have cancelled another creation, which has an id of its own.
            if failed[0].state in expected.states or None not in expected.states:
                uploads, failed = failed[:1], failed[1:]
        if len(failed) > self.ledger.failed_creations:
            return ["failed uploads are shown that there were not"]
        if not uploads:
            return [] if None in expected.states else [f"nothing is shown, but {expected}"]
        [upload] = uploads
        if not expected.allows(upload):
            return [f"{text_of(upload)} is shown, but {expected}"]
        problems = [] if upload.group == GROUP else [f"the group is {upload.group!r}"]
        # A name that another worker was told may be stored later, and is not worse.
        is_certain = expected.is_named and len(self.ledger.workers) == 1
        if is_certain and upload.filename != FILENAME:
            problems.append(f"the file name is {upload.filename!r}, not the application's")
        return problems

    def _uploads(
        self, listed: Mapping[str, UploadProgress]
    ) -> tuple[list[UploadProgress], list[UploadProgress]]:
        """Return the uploads of the resource, and failed creations, which have other ids."""
        name = f"{self.scenario.protocol}-"
        redirected = self._redirected
        uploads, failed = list[UploadProgress](), list[UploadProgress]()
        for each in listed.values():
            is_creation = not (self.application.has_id or each.upload_id.startswith(name))
            has_failed = each.state in {S.FAILED, S.CANCELLED} or each.upload_id in redirected
            (failed if is_creation and has_failed else uploads).append(each)
        return uploads, failed

    async def _check_leftovers(self) -> None:
        """Check that the workers keep nothing of ended uploads."""
        await anyio.sleep(LAST_TIMER_SECONDS if self.scenario.is_long else 1.0)
        for worker, tracker in enumerate(self.trackers):
            left = leftovers(tracker)
            if not self.scenario.is_long:
                del left["timers"]
            assert not any(left.values()), f"worker {worker} keeps {left}"


def _text_of(plan: Plan) -> str:
    first = plan.start or 0
    span = f" bytes {first} to {first + plan.size}" if plan.size else ""
    return f"{plan.method} {plan.path}{span}"
