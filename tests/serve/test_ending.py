"""How a server ends that is told to while many call it: each call that it took is answered to the
end, or refused with a reason."""

import json
import threading
import time

import httpx
import pytest

from tests.serve.serving import serving
from tests.serve.tiny_runs import TEXTS, finetuned
from tests.tiny import reviews, tiny_bert
from tests.tiny_decoder import tiny_decoder

CALLERS = 16
TOKENS = 40
WRITING = {"model": "tiny", "prompt": "the ball", "max_tokens": TOKENS, "min_tokens": TOKENS}
LONG = {**WRITING, "max_tokens": 3000, "min_tokens": 3000}
ENDED = "ended"  # nobody listens any more
REFUSED = "refused"
KINDS = {
    "stream": ("/v1/completions", {**WRITING, "stream": True}),
    "whole": ("/v1/completions", WRITING),
    "embeddings": ("/v1/embeddings", {"model": "bert", "input": TEXTS * 4}),
    "classify": ("/v1/classify", {"model": "labels", "input": TEXTS * 4}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    bert = tiny_bert(folder / "bert")
    labels = finetuned(folder, "labels", reviews(24), "classify", bert)
    writer = tiny_decoder(folder / "tiny", "qwen3", max_position_embeddings=4096)
    return writer, bert, labels


class Callers:
    """Threads that call without a pause, each on a connection of its own, until nobody listens."""

    def __init__(self, address, kinds):
        self.address = address
        self.found = {kind: [] for kind in kinds}
        names = list(kinds)
        self.threads = [
            threading.Thread(target=self._call_on, args=(name, *kinds[name]), daemon=True)
            for name in (names[index % len(names)] for index in range(CALLERS))
        ]
        for each in self.threads:
            each.start()

    def _call_on(self, kind, route, fields):
        with httpx.Client(base_url=self.address, timeout=60) as http:
            outcome = ""
            while outcome != ENDED:
                try:
                    outcome = _outcome(http, route, fields)
                except httpx.ConnectError:
                    outcome = ENDED
                except httpx.HTTPError as error:  # cut in silence
                    outcome = repr(error)
                self.found[kind].append(outcome)

    def join(self):
        for each in self.threads:
            each.join(60)
        assert not any(each.is_alive() for each in self.threads)


def _outcome(http, route, fields):
    """How a call ended, in a word."""
    if not fields.get("stream"):
        return _said(http.post(route, json=fields), fields)
    with http.stream("POST", route, json=fields) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    if answer.status_code != 200:
        return _reason(json.loads("".join(lines)))
    if lines[-1:] != ["[DONE]"]:
        return f"a stream that is cut after {lines[-1:]}"
    last = json.loads(lines[-2])
    if "error" in last:
        return _reason(last)
    return "whole" if last["choices"][0]["finish_reason"] == "length" else str(last)


def _said(answer, fields):
    body = answer.json()
    if answer.status_code != 200:
        return _reason(body)
    if "prompt" in fields:
        is_whole = body["usage"]["completion_tokens"] == fields["max_tokens"]
    else:
        is_whole = len(body["data"]) == len(fields["input"])
    return "whole" if is_whole else str(body)


def _reason(body):
    return REFUSED if body["error"]["code"] == "server_ending" else str(body)


def test_under_load_nothing_is_cut_in_silence(runs) -> None:
    with serving(*runs, "--memory", "200MB") as server:
        callers = Callers(server.address, KINDS)
        until = time.monotonic() + 240  # of a busy machine
        while not all(len(found) > 4 for found in callers.found.values()):
            assert time.monotonic() < until, callers.found
            time.sleep(0.05)
        assert server.end() == 0
        callers.join()
    for kind, found in callers.found.items():
        assert set(found) <= {"whole", REFUSED, ENDED}, (kind, found)
        assert found.count("whole") > 4 and found.count(ENDED) == CALLERS // 4


def test_what_is_not_answered_in_time_is_told_so(runs) -> None:
    kinds = {
        "stream": ("/v1/completions", {**LONG, "stream": True}),
        "whole": ("/v1/completions", LONG),
    }
    with serving(*runs, "--memory", "200MB", "--drain", "1") as server:
        callers = Callers(server.address, kinds)
        until = time.monotonic() + 240
        while _running(server) < CALLERS:
            assert time.monotonic() < until
            time.sleep(0.05)
        began = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began < 30
        callers.join()
        assert not any("Traceback" in line for line in server.said)
    for kind, found in callers.found.items():
        assert found.count(REFUSED) >= CALLERS // 2, (kind, found)
        assert set(found) == {REFUSED, ENDED}, (kind, found)


def _running(server):
    lines = server.http.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("langue_requests_running{")]
    return sum(float(line.split()[-1]) for line in found)
