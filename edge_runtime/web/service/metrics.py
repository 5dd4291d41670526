"""The service's metrics for Prometheus: those of every program, and those of its queue and its clients."""

from edge_runtime.model.bundle import Bundle
from edge_runtime.monitoring import metrics
from edge_runtime.monitoring.monitor import Monitor
from edge_runtime.web.http.problems import ProblemKind
from edge_runtime.web.schemas import Prediction

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 320)


class Metrics(metrics.Metrics):
    """The metrics of one service."""

    def __init__(self, bundle: Bundle, monitor: Monitor | None = None) -> None:
        super().__init__(bundle, monitor)
        self._pictures = self.counter("pictures_total", "Pictures judged, by verdict", "verdict")
        self._problems = self.counter("problems_total", "Requests refused or failed, by type", "type")
        self.batches = self.histogram("batch_crops", "Crops per batch", BATCH_BUCKETS)
        self.viewers = self.gauge("live_viewers", "Viewers of the live page")

    def count_problem(self, kind: ProblemKind) -> None:
        """Count a request, or one picture of a request, that was refused or failed."""
        self._problems.inc(of=kind.value)

    def count_prediction(self, prediction: Prediction, latency_s: float) -> None:
        """Count a judged picture."""
        self._pictures.inc(of=prediction.verdict.value if prediction.verdict else "no_face")
        for face in prediction.faces:
            self.faces.inc(of=face.verdict.value)
        self.latency.observe(latency_s)
