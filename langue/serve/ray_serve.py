"""What arrives: runs, and how many replicas there are to be. What leaves: an application of Ray
Serve, each of whose replicas is a whole server of ours in a process of its own, on any machine of
the cluster; Ray divides the calls among them, and starts a replica anew that has ended.

    serve run langue.serve.ray_serve:application runs=runs/chat,runs/reviews replicas=2

needs langue's extra: pip install 'langue[ray]'. Each machine must find the runs under these paths.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import SettingsError
from langue.serve.server import DRAIN, NEEDED, need

NEEDED_HERE = (*NEEDED, "ray")
CALLS = 64  # of one replica at a time; more wait at Ray's proxies, or start a replica
WORDS = ("runs", "replicas", "most_replicas", "memory", "weights", "api_keys", "name")


def deployment(
    runs: Sequence[str],
    *,
    replicas: int = 1,
    most_replicas: int | None = None,
    calls: int = CALLS,
    memory: str | None = None,
    weights: str | None = None,
    api_keys: str | Path | None = None,
    idle: float = 0.0,
    names: Sequence[str] = (),
    drain: int = DRAIN,
    limits: Mapping[str, Any] | None = None,
    actor: Mapping[str, Any] | None = None,
) -> Any:
    """An application for `ray.serve.run`.

    replicas: that run at least; most_replicas: up to which Ray adds more while the running ones
    have over half of their calls, None for a fixed number. actor: what each replica takes of a
    machine, as `{"num_cpus": 4, "num_gpus": 1}`. drain: seconds for open calls of a replica that
    is to end. All else is as in `langue serve`, of each replica. SettingsError where a package is
    missing, or the numbers of replicas are none.
    """
    need(NEEDED_HERE, "ray")
    if replicas < 1 or most_replicas is not None and most_replicas < replicas:
        raise SettingsError(
            f"replicas = {replicas} and most_replicas = {most_replicas} are no numbers of replicas",
            do="give 1 or more, and as many or more at most",
        )
    from ray import serve

    given = (list(map(str, runs)), memory, weights, idle, dict(limits or {}))
    keys = None if api_keys is None else str(api_keys)
    scaling: dict[str, Any] = {"num_replicas": replicas}
    if most_replicas is not None:
        scaling = {
            "autoscaling_config": {
                "min_replicas": replicas,
                "max_replicas": most_replicas,
                "target_ongoing_requests": max(1, calls // 2),
            }
        }

    def build() -> Any:
        """A replica's server, made in its process."""
        from langue.serve.app import make_app
        from langue.serve.guard import Doors, names_of
        from langue.serve.keys import read_keys
        from langue.serve.state import state_for

        state = state_for(*given)
        return make_app(state, Doors(read_keys(keys), names_of("0.0.0.0", names)))

    options = serve.deployment(
        name="langue",
        max_ongoing_requests=calls,
        graceful_shutdown_timeout_s=float(drain),
        ray_actor_options=dict(actor or {}),
        **scaling,
    )
    return options(serve.ingress(build)()).bind()


def application(words: Mapping[str, str]) -> Any:
    """The same from the words of `serve run`; runs and names have commas between."""
    unknown = [word for word in words if word not in WORDS]
    if unknown or not words.get("runs"):
        what = f"{unknown[0]} is not known" if unknown else "no run is given"
        raise SettingsError(what, do=f"give runs=RUN,RUN; there are {', '.join(WORDS)}")
    numbers = {name: words[name] for name in ("replicas", "most_replicas") if name in words}
    odd = next((name for name, value in numbers.items() if not value.isdecimal()), None)
    if odd is not None:
        raise SettingsError(f"{odd}={numbers[odd]} is no number", do=f"give {odd}=2")
    most = numbers.get("most_replicas")
    return deployment(
        words["runs"].split(","),
        replicas=int(numbers.get("replicas", 1)),
        most_replicas=None if most is None else int(most),
        memory=words.get("memory"),
        weights=words.get("weights"),
        api_keys=words.get("api_keys"),
        names=[name for name in words.get("name", "").split(",") if name],
    )
