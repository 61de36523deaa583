"""The thread of a model: what fails fails for those it concerns, and what is over is let go."""

import asyncio
import time

import pytest

from langue.errors import DataError
from langue.generation.request import Completion, Delta, Request
from langue.serve.metrics import Metrics
from langue.serve.worker import EngineError, Worker


class Engine:
    """Writes a token a step after each request, until one breaks it."""

    room = capacity = 100
    made = 0

    def __init__(self) -> None:
        Engine.made += 1
        self.asked = {}
        self.cancelled = []

    @property
    def has_work(self):
        return bool(self.asked)

    def put(self, request, constraint):
        id = len(self.asked) + 1
        self.asked[id] = request
        return id

    def cancel(self, id):
        self.cancelled.append(id)
        self.asked.pop(id, None)

    def step(self, now):
        if any(request.prompt == [666] for request in self.asked.values()):
            raise RuntimeError("a defect")
        return [Delta(id, [1]) for id in self.asked]

    def collect(self, id):
        return Completion()


def with_worker(test, **options):
    async def main():
        worker = Worker("m", asyncio.get_running_loop(), Metrics(), **options)
        try:
            return await test(worker)
        finally:
            await asyncio.to_thread(worker.close)

    return asyncio.run(main())


def test_an_engine_that_breaks_is_told_and_made_anew() -> None:
    async def test(worker):
        heard = []
        sink = lambda delta, completion: heard.append((delta, completion))  # noqa: E731
        await worker.put(Request([1]), None, sink)
        await worker.put(Request([666]), None, sink)
        while sum(completion is not None for _, completion in heard) < 2:
            await asyncio.sleep(0.01)
        ended = [delta for delta, completion in heard if completion is not None]
        assert all(isinstance(delta.error, EngineError) for delta in ended)
        assert "a defect" in str(ended[0].error)
        await worker.put(Request([2]), None, sink)  # the new one goes on
        count = len(heard)
        while len(heard) == count:
            await asyncio.sleep(0.01)
        assert heard[-1][0].tokens == [1] and worker.is_well

    Engine.made = 0
    with_worker(test, make_engine=Engine)
    assert Engine.made == 2


def test_who_goes_while_a_request_is_queued_leaves_nothing_behind() -> None:
    async def test(worker):
        task = asyncio.ensure_future(worker.put(Request([1]), None, lambda *_: None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not worker.engine.cancelled:
            await asyncio.sleep(0.01)
        assert not worker.engine.asked

    with_worker(test, make_engine=Engine)


def test_texts_that_fail_together_fail_alone() -> None:
    sizes = []

    def double(items):
        sizes.append(len(items))
        if "bad" in items:
            raise DataError("a bad text")
        if "worse" in items:
            raise ValueError("a defect")
        return [2 * item for item in items]

    async def test(worker):
        begin = asyncio.Event()
        worker._add(lambda: time.sleep(0.1))  # so that all wait together
        calls = [["a"], ["bad"], ["b", "c"], ["worse"]]
        tasks = [asyncio.ensure_future(worker.apply("k", double, items)) for items in calls]
        begin.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, bad, both, worse = with_worker(test)
    assert (first, both) == (["aa"], ["bb", "cc"])
    assert isinstance(bad, DataError) and isinstance(worse, EngineError)
    assert sizes[0] == 5


@pytest.mark.parametrize("keys", [["k"] * 6, range(6)])  # computed together, and each alone
def test_owners_take_turns(keys) -> None:
    order = []

    def note(items):
        order.extend(items)
        return items

    async def test(worker):
        worker._add(lambda: time.sleep(0.2))  # so that all wait
        calls = [("greedy", 200)] * 4 + [("modest", 10)] * 2
        tasks = [
            asyncio.ensure_future(worker.apply(key, note, [(owner, index)] * size, owner))
            for index, (key, (owner, size)) in enumerate(zip(keys, calls, strict=True))
        ]
        await asyncio.gather(*tasks)

    with_worker(test)
    assert list(dict.fromkeys(index for _, index in order)) == [0, 4, 5, 1, 2, 3]


def test_a_thread_that_has_ended_says_so() -> None:
    async def test(worker):
        await asyncio.to_thread(worker.close)
        assert not worker.is_well
        with pytest.raises(EngineError):
            await worker.apply("k", list, ["a"])
        worker.cancel(1)

    with_worker(test)


def test_metrics_are_written_as_prometheus_reads_them() -> None:
    metrics = Metrics()
    metrics.count("langue_requests_total", route='/a"b\\', status="200")
    metrics.count("langue_requests_total", 2, route='/a"b\\', status="200")
    for value in (0.001, 0.3, 100.0):
        metrics.observe("langue_request_seconds", value, route="/")
    metrics.set("langue_cache_use_ratio", 0.25, model="m")
    text = metrics.text()
    assert 'langue_requests_total{route="/a\\"b\\\\",status="200"} 3\n' in text
    assert 'langue_request_seconds_bucket{route="/",le="0.005"} 1\n' in text
    assert 'langue_request_seconds_bucket{route="/",le="0.5"} 2\n' in text
    assert 'langue_request_seconds_bucket{route="/",le="+Inf"} 3\n' in text
    assert 'langue_request_seconds_sum{route="/"} 100.301\n' in text
    assert 'langue_request_seconds_count{route="/"} 3\n' in text
    assert 'langue_cache_use_ratio{model="m"} 0.25\n' in text
    assert text.count("# TYPE langue_request_seconds histogram") == 1
