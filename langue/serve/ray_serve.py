"""Deployment on Ray Serve: takes runs and a number of replicas; returns an application, each
replica of which is a complete langue server in a process of its own on any machine of the cluster.
Ray distributes the calls, and restarts a replica that has ended.

  serve run langue.serve.ray_serve:application runs=runs/chat,runs/reviews replicas=2

Requires langue's extra: pip install 'langue[ray]'. Every machine must have the runs at these paths.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import SettingsError
from langue.serve.server import DRAIN, NEEDED, need

NEEDED_HERE = (*NEEDED, "ray")
CALLS = 64  # concurrent calls of one replica; more wait at Ray's proxies, or start another replica
TEXTS = ("memory", "weights", "api_keys")
NUMBERS = ("replicas", "most_replicas", "calls")
WORDS = ("runs", "name", *TEXTS, *NUMBERS)


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
    scaling: Mapping[str, Any] | None = None,
    actor: Mapping[str, Any] | None = None,
) -> Any:
    """Return an application for `ray.serve.run`.

    replicas: minimum number of replicas. most_replicas: number up to which Ray adds replicas while
    the running ones have more than half of their calls; None: a fixed number. calls: concurrent
    calls of one replica. scaling: further fields of Ray's `AutoscalingConfig`, such as
    `{"upscale_delay_s": 5}`. actor: resources of each replica, such as `{"num_cpus": 4, "num_gpus":
    1}`. drain: seconds in which a replica that shuts down completes its open calls. api_keys and
    LANGUE_API_KEYS are read here, and each replica gets the digests. All else is as in `langue
    serve`, for each replica. Raises SettingsError if a package is missing, the keys cannot be read,
    or the numbers of replicas are invalid.
    """
    if replicas < 1 or most_replicas is not None and most_replicas < replicas:
        raise SettingsError(
            f"replicas = {replicas} and most_replicas = {most_replicas} are no numbers of replicas",
            do="give 1 or more, and as many or more at most",
        )
    if calls < 1:
        raise SettingsError(f"calls = {calls} is no number of calls", do="give 1 or more")
    scaling = dict(scaling or {})
    if scaling and most_replicas is None:
        raise SettingsError("scaling is given without most_replicas", do="give most_replicas too")
    need(NEEDED_HERE, "ray")
    from ray import serve
    from ray.serve.config import AutoscalingConfig

    from langue.serve.keys import read_keys

    for name in scaling:
        # which would silently drop unknown fields
        if name not in AutoscalingConfig.__annotations__:
            raise SettingsError(
                f"scaling: Ray's AutoscalingConfig has no {name}", do="leave it out"
            )

    given = ([_path_of(run) for run in runs], memory, weights, idle, dict(limits or {}))
    keys = read_keys(api_keys)

    def build() -> Any:
        """Build a replica's server in its own process."""
        from langue.serve.app import make_app
        from langue.serve.guard import Doors, names_of
        from langue.serve.state import state_for

        return make_app(state_for(*given), Doors(keys, names_of("0.0.0.0", names)))

    class Replica:
        """The interface of a replica to Ray."""

        app: Any  # the result of `build`, set by Ray

        def check_health(self) -> None:
            """Raise an error that Ray shows to the operator; Ray then sends this replica no
            calls.
            """
            failure = self.app.app.state.serve.failure
            if failure is not None:
                raise RuntimeError(failure.message)

    number: dict[str, Any] = {"num_replicas": replicas}
    if most_replicas is not None:
        bounds = {"min_replicas": replicas, "max_replicas": most_replicas}
        target = {"target_ongoing_requests": max(1, calls // 2)}
        number = {"autoscaling_config": bounds | target | scaling}
    options = serve.deployment(
        name="langue",
        max_ongoing_requests=calls,
        graceful_shutdown_timeout_s=float(drain),
        ray_actor_options=dict(actor or {}),
        **number,
    )
    return options(serve.ingress(build)(Replica)).bind()


def application(words: Mapping[str, Any]) -> Any:
    """Return the application for the arguments of `serve run`, or the `args` of a Ray config file;
    several runs or names are separated by commas.
    """
    unknown = [word for word in words if word not in WORDS]
    if unknown or not words.get("runs"):
        what = f"{unknown[0]} is not known" if unknown else "no run is given"
        raise SettingsError(what, do=f"give runs=RUN,RUN; there are {', '.join(WORDS)}")
    # numbers may come from a config file
    given = {word: str(value) for word, value in words.items()}
    numbers = {word: given[word] for word in NUMBERS if word in given}
    odd = next((word for word, value in numbers.items() if not value.isdecimal()), None)
    if odd is not None:
        raise SettingsError(f"{odd}={numbers[odd]} is no number", do=f"give {odd}=2")
    settings: dict[str, Any] = {word: given[word] for word in TEXTS if word in given}
    settings |= {word: int(value) for word, value in numbers.items()}
    return deployment(
        given["runs"].split(","),
        names=[name for name in given.get("name", "").split(",") if name],
        **settings,
    )


def _path_of(run: str | Path) -> str:
    """Return an absolute path, since replicas have other working directories; what is no path here
    is resolved by each replica.
    """
    return str(Path(run).absolute()) if Path(run).exists() else str(run)
