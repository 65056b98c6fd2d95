"""What is counted, in the text format of Prometheus, in a registry of its own for each server.

Labels are routes as they are written in the code, methods and states; never anything that a client can choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
GAUGES = {
    "running": "answers being written",
    "waiting": "answers that wait for a place",
    "tokens_cached": "tokens in the key-value cache",
    "cache_tokens": "tokens that the key-value cache can hold",
}
COUNTERS = {
    "prompt_tokens": "tokens of prompts",
    "cached_tokens": "tokens of prompts that had not to be computed again",
    "answer_tokens": "tokens of answers",
    "answers": "answers that ended by themselves or at their length",
    "cancelled": "answers that nobody wanted any more",
    "failed": "answers that ended with an error",
}

Loads = Mapping[str, Mapping[str, float]]


class _Engines:
    """The load of each model, as it was when the page of measurements was asked for."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads

    def collect(self) -> Iterator[Metric]:
        for key, text in GAUGES.items():
            gauge = GaugeMetricFamily(f"groundup_{key}", text, labels=["model"])
            for model, load in self._loads.items():
                gauge.add_metric([model], load.get(key, 0.0))
            yield gauge
        for key, text in COUNTERS.items():
            counter = CounterMetricFamily(f"groundup_{key}", text, labels=["model"])
            for model, load in self._loads.items():
                counter.add_metric([model], load.get(key, 0.0))
            yield counter


class Metrics:
    """The measurements of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "groundup_requests", "requests answered", ["route", "method", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "groundup_request_seconds", "from request to end of answer", ["route"], registry=self._registry,
            buckets=SECONDS,
        )  # fmt: skip
        self._under_way = Gauge("groundup_requests_under_way", "requests not yet answered", registry=self._registry)

    def began(self) -> None:
        self._under_way.inc()

    def ended(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request; status 499 is for one whose client went away."""
        self._under_way.dec()
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def page(self, loads: Loads) -> bytes:
        """The text for Prometheus."""
        engines = CollectorRegistry(auto_describe=False)
        engines.register(_Engines(loads))
        return generate_latest(self._registry) + generate_latest(engines)
