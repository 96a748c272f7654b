"""What the server has done, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Counters"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CHAINS = (1, 2, 4, 8, 16, 32, 64, 128)


class Counters:
    """waiting: gives the number of chains that wait or are read now."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "dreamprm_requests", "Answers by path and status", ["path", "status"], registry=registry
        )
        self.chains = Counter("dreamprm_chains", "Chains that were scored", registry=registry)
        self.seconds = Histogram(
            "dreamprm_request_seconds", "From request to answer", ["path"], buckets=_SECONDS, registry=registry
        )
        self.batch = Histogram(
            "dreamprm_batch_chains", "Chains that were read at once", buckets=_CHAINS, registry=registry
        )
        self.busy = Counter("dreamprm_model_seconds", "Seconds in which the model was at work", registry=registry)
        Gauge("dreamprm_waiting_chains", "Chains that wait or are read now", registry=registry).set_function(waiting)

    def answered(self, path: str, status: int, seconds: float) -> None:
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def read(self, num_chains: int, seconds: float) -> None:
        """A batch was read."""
        self.chains.inc(num_chains)
        self.batch.observe(num_chains)
        self.busy.inc(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
