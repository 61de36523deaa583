"""Metrics of a server, in Prometheus' text format, version 0.0.4
(https://prometheus.io/docs/instrumenting/exposition_formats/).
"""

from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


class _Series:
    """All values of one metric, by their labels."""

    def __init__(self, kind: str, help: str, bounds: Sequence[float] = ()) -> None:
        self.kind = kind
        self.help = help
        self.bounds = tuple(bounds)
        self.values: dict[Labels, float] = {}
        # for histograms: one count per bucket, including +Inf
        self.counts: dict[Labels, list[int]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        counts = self.counts.setdefault(labels, [0] * (len(self.bounds) + 1))
        counts[bisect_left(self.bounds, value)] += 1
        self.values[labels] = self.values.get(labels, 0.0) + value

    def lines(self, name: str) -> list[str]:
        if self.kind != "histogram":
            return [f"{name}{_shown(labels)} {value:g}" for labels, value in self.values.items()]
        out = []
        for labels, counts in self.counts.items():
            so_far = 0
            for bound, count in zip((*self.bounds, None), counts, strict=True):
                so_far += count
                edge = "+Inf" if bound is None else f"{bound:g}"
                out.append(f"{name}_bucket{_shown((*labels, ('le', edge)))} {so_far}")
            out.append(f"{name}_sum{_shown(labels)} {self.values[labels]:.9g}")
            out.append(f"{name}_count{_shown(labels)} {so_far}")
        return out


class Metrics:
    """Counters, gauges and histograms, safe for use by several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._series = {
            "langue_requests_total": _Series("counter", "Calls, by route and status."),
            "langue_request_seconds": _Series("histogram", "Of a call, whole.", SECONDS),
            "langue_prompt_tokens_total": _Series("counter", "Tokens read."),
            "langue_cached_tokens_total": _Series("counter", "Of these, found in the cache."),
            "langue_generated_tokens_total": _Series("counter", "Tokens written."),
            "langue_texts_total": _Series("counter", "Texts embedded or predicted from."),
            "langue_batch_texts": _Series(
                "histogram", "Texts that went through a model together.", (1, 2, 4, 8, 16, 32, 64)
            ),
            "langue_time_to_first_token_seconds": _Series("histogram", "Of an answer.", SECONDS),
            "langue_time_between_tokens_seconds": _Series("histogram", "Of an answer.", SECONDS),
            "langue_requests_waiting": _Series("gauge", "Answers that have not begun."),
            "langue_requests_running": _Series("gauge", "Answers that are being written."),
            "langue_cache_use_ratio": _Series("gauge", "Pages of keys and values in use."),
            "langue_cache_known_ratio": _Series("gauge", "Pages kept for prompts to come."),
            "langue_model_loaded": _Series("gauge", "Whether a model is in memory."),
            "langue_model_bytes": _Series("gauge", "Memory that a model may take."),
        }

    def count(self, name: str, value: float = 1, **labels: str) -> None:
        """Add to a counter."""
        key = tuple(labels.items())
        with self._lock:
            values = self._series[name].values
            values[key] = values.get(key, 0.0) + value

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._series[name].values[tuple(labels.items())] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        with self._lock:
            self._series[name].observe(tuple(labels.items()), value)

    def text(self) -> str:
        """Return all metrics as text."""
        out = []
        with self._lock:
            for name, series in self._series.items():
                out += [f"# HELP {name} {series.help}", f"# TYPE {name} {series.kind}"]
                out += series.lines(name)
        return "\n".join(out) + "\n"


def _shown(labels: Labels) -> str:
    if not labels:
        return ""
    parts = [f'{name}="{_escaped(value)}"' for name, value in labels]
    return "{" + ",".join(parts) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
