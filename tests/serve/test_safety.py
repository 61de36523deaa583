"""Who may come in, what a server takes on, and how it ends."""

import contextlib
import json
import shutil
import signal
import socket
import struct
import threading
import time

import httpx
import pytest

from langue.cli import run
from langue.runs.model import load
from langue.runtime import SERVING_KERNELS
from tests.serve.serving import serving, with_template
from tests.tiny_decoder import tiny_decoder

KEY, OTHER = "first-secret-key", "second-secret-key"
SHORT = {"model": "tiny", "prompt": "a", "max_tokens": 1}
LONG = {"model": "tiny", "prompt": "the ball", "max_tokens": 3000, "min_tokens": 3000}


# A prompt "slow" takes a while to read; the signal has it told what lives of calls that are over.
WATCHED = """
import gc, os, signal, sys, time
from langue.serve.writing import Answers
prepare = Answers._prepare
def slow(self, asked, prompt, seed):
    time.sleep(3 if prompt == "slow" else 0)
    return prepare(self, asked, prompt, seed)
Answers._prepare = slow
def tell(*_):
    gc.collect()
    names = [type(each).__name__ for each in gc.get_objects()]
    kept = os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]
    found = names.count("RequestResponseCycle"), names.count("Answers"), kept
    print("alive:", *found, file=sys.stderr, flush=True)
signal.signal(signal.SIGUSR1, tell)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tiny_decoder(
        tmp_path_factory.mktemp("model") / "tiny", "qwen3", max_position_embeddings=4096
    )
    return with_template(made)


@pytest.fixture(scope="module")
def open_server(folder):
    words = ("--memory", "60MB", "--max-body", "20000", "--concurrent", "2")
    with serving(folder, *words) as found:
        yield found


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(f"# whose\n{KEY}\n", "utf-8")
    words = ("--memory", "60MB", "--api-keys", keys, "--rate", "600", "--deadline", "2")
    with serving(folder, *words, LANGUE_API_KEYS=OTHER) as found:
        found.http.headers["authorization"] = f"Bearer {KEY}"
        yield found


def gauge(server, name):
    lines = server.http.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith(f"{name}{{")]
    return float(found[0].split()[-1])


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


def test_every_route_wants_a_key_but_those_that_tell_nothing(server) -> None:
    described = server.http.get("/openapi.json").json()["paths"]
    routes = {(path, method) for path, methods in described.items() for method in methods}
    assert ("/v1/chat/completions", "post") in routes and len(routes) > 12
    bare = httpx.Client(base_url=server.address)
    for path, method in [*routes, ("/openapi.json", "get"), ("/nothing", "get")]:
        for headers in ({}, {"authorization": "Bearer wrong-key"}, {"authorization": KEY}):
            answer = bare.request(method, path.replace("{id}", "tiny"), json={}, headers=headers)
            expected = 200 if path == "/live" else 401
            assert answer.status_code == expected, (path, answer.text)
    for key in (KEY, OTHER):
        answer = bare.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200
    assert not any(key in line for line in server.said for key in (KEY, OTHER))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:80"}, 403),
        ({"host": "localhost:1"}, 200),
        ({"host": "[::1]:1"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_pages_of_others_may_not_call(open_server, headers, status) -> None:
    answer = open_server.http.get("/v1/models", headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"model": "tiny", "prompt": "a"}', "text/plain", 415),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b"[" * 15_000, "application/json", 400),
        (b'{"model": "tiny", "prompt": "\\ud800"}', "application/json", 400),
        (b'{"model": "tiny", "prompt": "a", "temperature": NaN}', "application/json", 400),
        (b'{"model": "tiny", "prompt": "a", "seed": 1e400}', "application/json", 400),
        (b'{"model": "tiny", "prompt": "\xff"}', "application/json", 400),
        (b'{"prompt": "' + b"a" * 30_000 + b'"}', "application/json", 413),
    ],
)
def test_bodies_that_are_none_are_refused(open_server, content, kind, status) -> None:
    headers = {"content-type": kind}
    answer = open_server.http.post("/v1/completions", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_unknown_routes_and_methods_are_told_in_the_same_shape(open_server) -> None:
    wrong = [("/v1/nothing", "get", 404)]
    wrong += [("/v1/models", method, 405) for method in ("delete", "post")]
    for path, method, status in wrong:
        answer = open_server.http.request(method, path)
        assert answer.status_code == status and "message" in answer.json()["error"]


def test_the_description_lists_the_models(open_server) -> None:
    described = open_server.http.get("/openapi.json").json()
    fields = described["components"]["schemas"]["ChatFields"]["properties"]
    assert fields["model"]["enum"] == ["tiny"]


def test_a_caller_who_goes_frees_what_was_held(open_server) -> None:
    for stream in (True, False):
        with pytest.raises(httpx.ReadTimeout), open_server.http.stream(
            "POST", "/v1/completions", json={**LONG, "stream": stream},
            timeout=httpx.Timeout(20, read=0.3 if not stream else 20),
        ) as answer:  # fmt: skip
            next(answer.iter_lines())
            raise httpx.ReadTimeout("gone")
        until(lambda: gauge(open_server, "langue_requests_running") == 0)
        assert gauge(open_server, "langue_cache_use_ratio") == 0
    until(lambda: sum('"client": "gone"' in line for line in open_server.said) >= 2)


def test_what_is_too_much_at_once_is_told_to_come_again(open_server) -> None:
    streams = [
        open_server.http.stream("POST", "/v1/completions", json={**LONG, "stream": True})
        for _ in range(2)
    ]
    opened = [each.__enter__() for each in streams]
    refused = open_server.http.post("/v1/completions", json=SHORT)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    for each in opened:
        each.close()
    until(lambda: gauge(open_server, "langue_requests_running") == 0)


def test_an_answer_that_takes_too_long_is_ended(server) -> None:
    fields = {**LONG, "n": 16}
    with server.http.stream("POST", "/v1/completions", json={**fields, "stream": True}) as s:
        answer = server.http.post("/v1/completions", json=fields)
        lines = [line for line in s.iter_lines() if line]
    assert answer.status_code == 504 and answer.json()["error"]["code"] == "deadline_exceeded"
    assert "deadline_exceeded" in lines[-2] and lines[-1] == "data: [DONE]"


def test_beginnings_are_not_shared_between_keys(server) -> None:
    prompt = "the ball is in the web and the others are there too " * 4

    def cached(key):
        answer = server.http.post(
            "/v1/completions",
            json={"model": "tiny", "prompt": prompt, "max_tokens": 1},
            headers={"authorization": f"Bearer {key}"},
        )
        return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert (cached(KEY), cached(OTHER)) == (0, 0)
    assert cached(KEY) > 0 and cached(OTHER) > 0


def test_lines_of_the_log_are_json_without_prompts(open_server) -> None:
    id = "my-own-id.1"
    fields = {"model": "tiny", "prompt": "nobody shall read this", "max_tokens": 2}
    answer = open_server.http.post("/v1/completions", json=fields, headers={"x-request-id": id})
    assert answer.headers["x-request-id"] == id
    until(lambda: any(id in line for line in open_server.said))
    (line,) = [json.loads(line) for line in open_server.said if id in line]
    assert (line["status"], line["model"], line["new_tokens"]) == (200, "tiny", 2)
    assert not any("nobody" in line for line in open_server.said)
    odd = open_server.http.get("/live", headers={"x-request-id": "a b\tc"})
    assert odd.headers["x-request-id"].startswith("req_")


def test_connections_on_which_no_call_comes_are_closed(folder) -> None:
    """And none on which one came; a body that stops half-way is refused."""
    limits = "from langue.serve import guard, uvicorn_server as server\n"
    limits += "server.SILENT = 1\nguard.BODY_SECONDS = 1.0"
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    with serving(folder, "--memory", "60MB", before=limits) as server:
        host, _, port = server.address.removeprefix("http://").partition(":")

        def connect(said):
            connection = socket.create_connection((host, int(port)), timeout=30)
            connection.sendall(said)
            return connection

        kind = b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        with connect(b"") as used, connect(b"") as silent, connect(head) as begun:
            for seconds in (0, 1.2):
                time.sleep(seconds)  # it stays open where another is closed
                used.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = b""
                while not answer.endswith(b"}"):  # it may come in several pieces
                    answer += used.recv(4096)
                assert answer.startswith(b"HTTP/1.1 200")
            for each in (silent, begun):
                assert each.recv(100) == b""
        with connect(head + kind) as half:
            assert half.recv(100).startswith(b"HTTP/1.1 408")


def test_one_key_leaves_places_for_others(folder) -> None:
    words = ("--memory", "60MB", "--concurrent", "4")
    with serving(folder, *words, LANGUE_API_KEYS=f"{KEY},{OTHER}") as server:

        def call(key, **more):
            fields = {**SHORT, **more}
            headers = {"authorization": f"Bearer {key}"}
            return server.http.stream("POST", "/v1/completions", json=fields, headers=headers)

        with contextlib.ExitStack() as stack:
            fields = {**LONG, "stream": True}
            opened = [stack.enter_context(call(KEY, **fields)) for _ in range(3)]
            assert [each.status_code for each in opened] == [200, 200, 429]
            assert "2 of 4" in opened[2].read().decode() and opened[2].headers["retry-after"]
            other = stack.enter_context(call(OTHER, **fields))
            assert other.status_code == 200


def test_rates_are_kept(folder) -> None:
    with serving(folder, "--memory", "60MB", "--rate", "3") as server:
        found = [server.http.post("/v1/completions", json=SHORT) for _ in range(4)]
        assert [each.status_code for each in found] == [200, 200, 200, 429]
        assert 1 <= int(found[-1].headers["retry-after"]) <= 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_to_the_end(folder, number) -> None:
    with serving(folder, "--memory", "60MB") as server:
        fields = {**LONG, "max_tokens": 400, "min_tokens": 400, "stream": True}
        with server.http.stream("POST", "/v1/completions", json=fields) as answer:
            lines = answer.iter_lines()
            next(lines)
            codes = []
            ending = threading.Thread(target=lambda: codes.append(server.end(number)))
            ending.start()
            rest = [line for line in lines if line]
        ending.join(90)
        assert rest[-1] == "data: [DONE]" and '"length"' in rest[-2]
        assert codes == [0]
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.address}/live")


def test_models_are_loaded_when_asked_for_and_unloaded(folder, tmp_path, capsys) -> None:
    second = tiny_decoder(tmp_path / "second", "qwen3", max_position_embeddings=4096)
    line = refused(capsys, folder, "--port", 0, "--memory", "100KB")
    memory = int(line.rpartition("--memory ")[2].split()[0]) * 3 // 2
    with serving(folder, second, "--memory", memory, "--idle", "0.6") as server:
        for name in ("tiny", "second", "tiny"):
            fields = {**SHORT, "model": name}
            assert server.http.post("/v1/completions", json=fields).status_code == 200
            models = server.http.get("/health").json()["models"]
            assert models == {name: "ok"}  # there is room for one
        until(lambda: server.http.get("/health").json()["models"] == {})
        assert server.http.post("/v1/completions", json=fields).status_code == 200


def test_matrices_may_be_held_in_few_bits(folder, capsys) -> None:
    def need(*words):
        line = refused(capsys, folder, "--port", 0, "--memory", "1KB", *words)
        return int(line.rpartition("--memory ")[2].split()[0])

    assert need("--weights", "int8") < need("--weights", "fp32")
    assert "fp8" in refused(capsys, folder, "--port", 0, "--weights", "fp8")
    with serving(folder, "--weights", "int8", "--memory", "60MB") as server:
        answer = server.http.post("/v1/completions", json={**SHORT, "max_tokens": 8})
        expected = load(folder, weights="int8").generate(["a"], 8)
        assert answer.json()["choices"][0]["text"] == expected[0]


def refused(capsys, *words):
    assert run(["serve", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_cannot_be_served_is_one_line(folder, tmp_path, capsys, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(capsys, folder, "--port", port)
        assert f"127.0.0.1:{port}" in line and "give another --port" in line
    line = refused(capsys, folder, "--port", 0, "--memory", "100KB")
    need = line.rpartition("--memory ")[2].split()[0]
    assert str(folder) in line and int(need) > 100_000
    with serving(folder, "--memory", need):  # what it says to do works
        pass
    assert "is not a size" in refused(capsys, folder, "--port", 0, "--memory", "lots")
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in folder.iterdir():
        if "token" not in file.name:
            (bare / file.name).write_bytes(file.read_bytes())
    assert "tokenizer" in refused(capsys, bare, "--port", 0)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert str(broken) in refused(capsys, broken, "--port", 0)
    assert "would both be named tiny" in refused(capsys, folder, folder, "--port", 0)
    assert "API key" in refused(capsys, folder, "--port", 0, "--host", "0.0.0.0")
    with monkeypatch.context() as patch:
        patch.setenv("LANGUE_API_KEYS", KEY)
        assert "no address" in refused(capsys, folder, "--port", 0, "--host", "no such host")
        patch.setenv("LANGUE_API_KEYS", f"{KEY},")
        assert "LANGUE_API_KEYS" in refused(capsys, folder, "--port", 0)
    keys = tmp_path / "keys"
    assert "no such file" in refused(capsys, folder, "--port", 0, "--api-keys", keys)
    for text, said in (
        ("# none\n", "no key"),
        ("good-enough-key\nshort\n", "line 2"),
        ("sha256:12\n", "64"),
    ):
        keys.write_text(text, "utf-8")
        line = refused(capsys, folder, "--port", 0, "--api-keys", keys)
        assert said in line and "short" not in line
    keys.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused(capsys, folder, "--port", 0, "--api-keys", keys)


def test_a_key_may_be_kept_as_its_digest(tmp_path) -> None:
    import hashlib

    from langue.serve.keys import read_keys

    file = tmp_path / "keys"
    file.write_text(f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}\n{OTHER}\n", "utf-8")
    keys = read_keys(file)
    assert keys.owner(KEY) and keys.owner(OTHER) and keys.owner(KEY) != keys.owner(OTHER)
    assert keys.owner("another") is None and not read_keys(None)


def hang_up(server, prompt):
    """Ask for a stream, and go at once, in the way that resets the connection."""
    fields = {"model": "tiny", "prompt": prompt, "max_tokens": 200, "stream": True}
    body = json.dumps(fields)
    host, _, port = server.address.removeprefix("http://").partition(":")
    lines = ("POST /v1/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall((head + body).encode())
        time.sleep(0.02)


def test_who_goes_leaves_nothing_behind(folder):
    with serving(folder, "--memory", "60MB", before=WATCHED) as server:

        def left():
            server.process.send_signal(signal.SIGUSR1)
            count = len(server.said)
            until(lambda: any(line.startswith("alive:") for line in server.said[count:]))
            return next(line for line in server.said[count:] if line.startswith("alive:")).split()

        for _ in range(50):
            hang_up(server, "the ball")
        until(lambda: left()[1:3] == ["0", "0"], 8)  # not when the time of silence is over
        assert left()[3] == str(SERVING_KERNELS)
        hang_up(server, "slow")
        until(lambda: any('"status": 499' in line for line in server.said))
        gone = next(json.loads(line) for line in server.said if '"status": 499' in line)
        assert gone["seconds"] < 2  # nobody waits for its prompt to be read
