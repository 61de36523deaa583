"""Run one peer on a job, both given by JSON on stdin, and print its timings as JSON on stdout.

Every round of every peer is a separate process (`python -m benchmarks.peers NAME`), so that none
inherits the threads, memory or warm caches of another, and peers run in turn: A B A B.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.noise import others, wait_until_quiet

Peer = Callable[[dict[str, Any]], dict[str, Any]]


def run(name: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run one round of one peer in a child process, whose own output is shown on stderr only if it
    fails.
    """
    quiet = {
        "TOKENIZERS_PARALLELISM": "true",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", name],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env=os.environ | quiet,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def take_turns(
    names: list[str], rounds: int, patience: float, job: Callable[[str], dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Run each peer `rounds` times, in turn, each after at most `patience` seconds of waiting for a
    quiet machine. A peer that answers `{"missing": why}` is not run again.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    missing: dict[str, str] = {}
    for number in range(rounds):
        for name in names:
            if name in missing:
                continue
            wait_until_quiet(patience)
            with others() as share:
                answer = run(name.split(":")[0], job(name))
            answer["others"] = share[0]
            if "missing" in answer:
                missing[name] = answer["missing"]
                print(f"  {name}: skipped, {answer['missing']}")
                continue
            results[name].append(answer)
            speed = f"{answer['speed']:8.1f} {answer['unit']}"
            print(
                f"  round {number + 1}  {name:<26} {speed}  (others took {share[0]:.0%} of the"
                " machine)",
                flush=True,
            )
    return {name: answers for name, answers in results.items() if answers}


def main() -> None:
    from benchmarks import encode_peers, finetune_peers, gpt2_peers, imdb_peers

    known = (encode_peers, finetune_peers, gpt2_peers, imdb_peers)
    peers: dict[str, Peer] = {name: peer for each in known for name, peer in each.PEERS.items()}
    answer = peers[sys.argv[1]](json.load(sys.stdin))
    print("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
