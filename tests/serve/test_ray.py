"""A local Ray: two replicas of one server, one of which is killed."""

import shutil
import socket
import tempfile
import threading
import time

import httpx
import pytest

from langue.errors import SettingsError
from langue.runs.model import load
from langue.serve import ray_serve
from tests.serve.serving import with_template
from tests.tiny_decoder import tiny_decoder

PROMPTS = ["the ball", "a bat in the", "others", "is the web"]
ROUTE = "/v1/completions"
KEY = "a-key-of-the-cluster"


def test_words_of_serve_run_are_checked(monkeypatch) -> None:
    for words, said in (
        ({}, "no run"),
        ({"runs": "a", "mood": "b"}, "mood is not known"),
        ({"runs": "a", "replicas": "two"}, "replicas=two"),
    ):
        with pytest.raises(SettingsError, match=said):
            ray_serve.application(words)
    monkeypatch.setattr(ray_serve, "NEEDED_HERE", ("no_such_package",))
    with pytest.raises(SettingsError, match=r"langue\[ray\]"):
        ray_serve.deployment(["a"])


@pytest.mark.slow
def test_a_killed_replica_comes_back_and_no_answer_is_lost_in_silence(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'langue[ray]'")
    import ray
    from ray import serve

    folder = with_template(tiny_decoder(tmp_path / "tiny", "qwen3", max_position_embeddings=1024))
    expected = load(folder, dtype="auto").generate(PROMPTS, 60)
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n", "utf-8")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # it would leave a token in the home folder
    # names of sockets are short, and so must this be
    files = tempfile.mkdtemp(prefix="ray")
    try:
        ray.init(num_cpus=2, include_dashboard=False, _temp_dir=files, log_to_driver=False)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        made = ray_serve.deployment(
            [str(folder)], replicas=2, memory="60MB", api_keys=file, actor={"num_cpus": 0.1}
        )
        serve.run(made, name="langue")
        _ask_and_kill(f"http://127.0.0.1:{port}", expected)
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(files, ignore_errors=True)


def _replicas() -> set[str]:
    """The names of the replicas that run."""
    from ray.util import list_named_actors

    found = {each["name"] for each in list_named_actors(all_namespaces=True)}
    return {name for name in found if name.startswith("SERVE_REPLICA::")}


def _are_running() -> bool:
    from ray import serve

    found = serve.status().applications["langue"].deployments["langue"]
    return found.replica_states.get("RUNNING") == 2


def _ask_and_kill(address, expected):
    import ray

    headers = {"authorization": f"Bearer {KEY}"}
    assert httpx.get(f"{address}/v1/models").status_code == 401
    before = _replicas()
    assert len(before) == 2
    ended = []

    def call(index):
        fields = {"model": "tiny", "prompt": PROMPTS[index % 4], "max_tokens": 60}
        try:
            answer = httpx.post(
                f"{address}/v1/completions", json=fields, headers=headers, timeout=60
            )
        except httpx.HTTPError as error:
            ended.append(type(error).__name__)
            return
        if answer.status_code == 200:
            good = answer.json()["choices"][0]["text"] == expected[index % 4]
            ended.append("right" if good else "WRONG")
        else:
            ended.append(str(answer.status_code))

    threads = [threading.Thread(target=call, args=(index,)) for index in range(40)]
    for index, each in enumerate(threads):
        each.start()
        if index == 20:
            ray.kill(ray.get_actor(min(before), namespace="serve"))
        time.sleep(0.02)
    for each in threads:
        each.join()
    # each call has an answer or an error, and no answer is another one's
    assert len(ended) == 40 and "WRONG" not in ended and ended.count("right") >= 10, ended
    end = time.monotonic() + 60
    while not _are_running() or len(_replicas()) < 2 or _replicas() == before:
        assert time.monotonic() < end, "the replica does not come back"
        time.sleep(0.5)
    fields = {"model": "tiny", "prompt": PROMPTS[0], "max_tokens": 60, "stream": True}
    with httpx.stream("POST", f"{address}{ROUTE}", json=fields, headers=headers) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]" and len(lines) > 10
