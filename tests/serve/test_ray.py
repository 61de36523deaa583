"""A local Ray: replicas of one server, their number, and one of them that is killed."""

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter

import httpx
import openai
import pytest

from langue.errors import SettingsError
from langue.runs.model import load
from langue.serve import ray_serve
from tests.serve.serving import serving, with_template
from tests.tiny_decoder import tiny_decoder

PROMPTS = ["the ball", "a bat in the", "others", "is the web"]
KEY = "a-key-of-the-cluster"
CALLERS = 6
PATIENCE = 240  # seconds; a replica takes about 8 to begin on two free cores
SETTINGS = {
    # Ray gives its own processes 30 s to begin
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # it would leave a token in the home folder
}
# Ray looks how busy replicas are each ten seconds, and waits for thirty
QUICK = {"upscale_delay_s": 0, "metrics_interval_s": 0.5, "look_back_period_s": 2}


def test_words_of_serve_run_are_checked(monkeypatch) -> None:
    for words, said in (
        ({}, "no run"),
        ({"runs": "a", "mood": "b"}, "mood is not known"),
        ({"runs": "a", "replicas": "two"}, "replicas=two"),
        ({"runs": "a", "replicas": 0}, "replicas = 0"),
        ({"runs": "a", "replicas": 3, "most_replicas": 2}, "most_replicas = 2"),
        ({"runs": "a", "calls": "0"}, "calls = 0"),
    ):
        with pytest.raises(SettingsError, match=said):
            ray_serve.application(words)
    with pytest.raises(SettingsError, match="without most_replicas"):
        ray_serve.deployment(["a"], scaling=QUICK)
    monkeypatch.setattr(ray_serve, "NEEDED_HERE", ("no_such_package",))
    with pytest.raises(SettingsError, match=r"langue\[ray\]"):
        ray_serve.deployment(["a"])


@pytest.fixture
def address(monkeypatch):
    """Of the proxy of a local Ray, which ends with the test."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'langue[ray]'")
    from ray import serve

    files = tempfile.mkdtemp(prefix="r", dir="/tmp")  # names of sockets are short
    try:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=80_000_000,
            _temp_dir=files,
            log_to_driver=False,
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(files, ignore_errors=True)


@pytest.mark.slow
def test_replicas_answer_as_one_server_grow_in_number_and_come_back(tmp_path, address):
    from ray import serve

    folder = with_template(tiny_decoder(tmp_path / "tiny", "qwen3", max_position_embeddings=1024))
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n", "utf-8")
    expected = dict(zip(PROMPTS, load(folder, dtype="auto").generate(PROMPTS, 60), strict=True))
    with serving(folder) as alone:
        chat = _chat(alone.openai(), PROMPTS[0])

    some = {"api_keys": keys, "memory": "60MB", "calls": 4, "actor": {"num_cpus": 0.1}}
    with pytest.raises(SettingsError, match="no pace"):
        ray_serve.deployment([folder], most_replicas=2, scaling={"pace": 2}, **some)
    made = ray_serve.deployment([folder], most_replicas=2, scaling=QUICK, **some)
    serve.run(made, name="langue", route_prefix="/")
    keys.unlink()  # replicas that begin later have been given the digests
    _deploy_broken(tmp_path / "broken")

    first = _replicas()
    assert len(first) == 1
    client = _client(address)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="another-key").models.list()
    calls = _Calls(client, expected)
    with calls:
        both = _wait_for(lambda now: len(now) == 2)
        os.kill(min(first), signal.SIGKILL)
        again = _wait_for(lambda now: len(now) == 2 and not first & now)
    assert both & again == both - first
    # each call has ended, with its own answer or with an error, which only open ones have
    ended = calls.ended
    assert ended.total() == calls.begun and ended["wrong"] == 0, ended
    assert ended["right"] > 20 and ended.total() - ended["right"] <= CALLERS, ended

    assert _chat(client, PROMPTS[0]) == chat
    parts = list(_complete(client, PROMPTS[1], stream=True))
    assert "".join(parts) == expected[PROMPTS[1]] and len(parts) > 10
    _check_broken()


def _deploy_broken(folder) -> None:
    """A model that cannot be loaded, as another application; meanwhile the test goes on."""
    from ray import serve

    tiny_decoder(folder, "qwen3")
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(100_000)
    made = ray_serve.application({"runs": folder, "replicas": 1})  # as a config file has it
    target = serve.RunTarget(made, name="broken", route_prefix="/broken")
    serve.run_many([target], wait_for_applications_running=False)


def _check_broken() -> None:
    """Whoever deploys it is told why."""
    from ray import serve

    end = time.monotonic() + PATIENCE
    while (found := serve.status().applications["broken"]).status != "DEPLOY_FAILED":
        assert time.monotonic() < end, found
        time.sleep(0.5)
    assert "not a whole safetensors file" in found.deployments["langue"].message


class _Calls:
    """Callers that ask for completions, whole and as streams in turn, until the block ends."""

    def __init__(self, client, expected) -> None:
        self.client = client
        self.expected = expected
        self.begun = 0
        self.ended = Counter()  # right, wrong, or the name of an error
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._end.is_set():
            with self._lock:
                prompt = PROMPTS[self.begun % len(PROMPTS)]
                stream = self.begun % 2 == 0
                self.begun += 1
            try:
                text = "".join(_complete(self.client, prompt, stream))
                how = "right" if text == self.expected[prompt] else "wrong"
            except (openai.APIError, httpx.HTTPError) as error:  # httpx's of streams
                how = f"{type(error).__name__}: {error}"
            with self._lock:
                self.ended[how] += 1


def _client(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0, timeout=60)


def _chat(client, text) -> str:
    messages = [{"role": "user", "content": text}]
    answer = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=60, temperature=0
    )
    return answer.choices[0].message.content


def _complete(client, prompt, stream=False):
    """The text of a completion, in the parts that it comes in."""
    answer = client.completions.create(
        model="tiny", prompt=prompt, max_tokens=60, temperature=0, stream=stream
    )
    for part in answer if stream else [answer]:
        yield part.choices[0].text


def _replicas() -> set[int]:
    """The processes of the replicas that take calls."""
    from ray.serve.context import _get_global_client

    found = _get_global_client().get_serve_details()["applications"]["langue"]["deployments"]
    return {each["pid"] for each in found["langue"]["replicas"] if each["state"] == "RUNNING"}


def _wait_for(is_so) -> set[int]:
    end = time.monotonic() + PATIENCE
    while not is_so(found := _replicas()):
        assert time.monotonic() < end, found
        time.sleep(0.5)
    return found
