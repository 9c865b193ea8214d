"""Counts answers, for `/metrics`."""

from collections import Counter
from collections.abc import Iterable, Mapping

from starlette.types import Scope

BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 25.0)
Labels = tuple[tuple[str, str], ...]


class RequestMetrics:
    """Counts answers by route, never by path: paths hold ids, and would be numbers without end."""

    def __init__(self) -> None:
        self._answers: Counter[Labels] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0

    def observe(self, scope: Scope, *, status: int, seconds: float) -> None:
        """One answer more."""
        route = getattr(scope.get("route"), "path", "none")
        self._answers[("method", scope["method"]), ("route", route), ("status", str(status))] += 1
        self._seconds += seconds
        for bucket in BUCKETS:
            self._buckets[bucket] += seconds <= bucket

    def lines(self) -> Iterable[str]:
        """As Prometheus reads them."""
        yield from metric("hdb_requests_total", "counter", self._answers)
        yield "# TYPE hdb_request_seconds histogram"
        for bucket in BUCKETS:
            yield f'hdb_request_seconds_bucket{{le="{bucket}"}} {self._buckets[bucket]}'
        total = self._answers.total()
        yield f'hdb_request_seconds_bucket{{le="+Inf"}} {total}'
        yield f"hdb_request_seconds_sum {self._seconds:.6f}"
        yield f"hdb_request_seconds_count {total}"


def metric(name: str, kind: str, values: Mapping[Labels, float]) -> Iterable[str]:
    """One metric with its labels."""
    yield f"# TYPE {name} {kind}"
    for labels, value in sorted(values.items()):
        written = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
        yield f"{name}{{{written}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
