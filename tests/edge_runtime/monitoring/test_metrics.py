"""Metrics over HTTP without the web extra, the alert rules and the dashboard that use them."""

import contextlib
import io
import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from helpers.monitored import drawn, save_faces
from helpers.waiting import until
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from edge_runtime.detector import Detector
from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import Bundle
from edge_runtime.monitoring import exporter as exporters
from edge_runtime.monitoring import metrics as module
from edge_runtime.monitoring.exporter import Exporter, parse_address
from edge_runtime.monitoring.exposition import Counter, Gauge, Histogram, exposition
from edge_runtime.monitoring.metrics import DetectMetrics, temperature, temperatures
from edge_runtime.monitoring.monitor import Monitor
from edge_runtime.web.app import create_app
from edge_runtime.web.settings import Settings

FILES = Path(module.__file__).with_name("prometheus")
WITHOUT_WEB = """
import sys
for name in ("prometheus_client", "fastapi", "uvicorn", "starlette"):
    sys.modules[name] = None
from edge_runtime.cli import main
main()
"""


def get(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return answer.read().decode()


def samples(text: str) -> dict[str, float]:
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name + json.dumps(sample.labels, sort_keys=True): sample.value for sample in found}


def test_prometheus_parser_reads_it() -> None:
    odd = 'a "quoted" \\ path\nwith a line end'
    counter, gauge = Counter("seen_total", "Seen", "source"), Gauge("level", "Level")
    histogram = Histogram("age_seconds", "Age", (0.1, 1))
    counter.inc(2, odd)
    gauge.set(-0.5)
    for value in (0.05, 0.1, 0.5, 7):
        histogram.observe(value)
    found = samples(exposition([counter, gauge, histogram]))
    assert found == {
        "seen_total" + json.dumps({"source": odd}): 2,
        "level{}": -0.5,
        'age_seconds_bucket{"le": "0.1"}': 2,
        'age_seconds_bucket{"le": "1.0"}': 3,
        'age_seconds_bucket{"le": "+Inf"}': 4,
        "age_seconds_count{}": 4,
        "age_seconds_sum{}": pytest.approx(7.65),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [("9464", ("127.0.0.1", 9464)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:0", ("::1", 0)), ("door:1", ("door", 1))],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "x", "70000", "1.2.3.4", "::1:80", "a b:80"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--metrics"):
        parse_address(text)


def test_a_port_in_use_is_refused_and_a_silent_client_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.monitoring.exporter.PATIENCE_S", 0.2)
    with Exporter(("127.0.0.1", 0), lambda: "up 1\n") as exporter:
        with pytest.raises(UsageError, match="can't listen"):
            Exporter(("127.0.0.1", exporter.port), lambda: "")
        with socket.create_connection(("127.0.0.1", exporter.port)):
            assert get(exporter.port) == "up 1\n"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(exporter.port, "/")


def test_slow_clients_delay_neither_others_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "PATIENCE_S", 1.5)
    with Exporter(("127.0.0.1", 0), lambda: "up 1\n") as exporter:
        slow = [socket.create_connection(("127.0.0.1", exporter.port)) for _ in range(exporters.MOST_CLIENTS - 1)]
        began = time.monotonic()
        assert get(exporter.port) == "up 1\n"
        assert time.monotonic() - began < 1.0
        ended = threading.Event()

        def drip(client: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(0.1):
                    client.sendall(b"G")
            dropped.append(time.monotonic() - began)

        dropped: list[float] = []
        threads = [threading.Thread(target=drip, args=(client,)) for client in slow]
        for thread in threads:
            thread.start()
        # One more than are answered.
        slow += [socket.create_connection(("127.0.0.1", exporter.port)) for _ in range(2)]
        slow[-1].settimeout(5)
        assert slow[-1].recv(1) == b""
        until(lambda: len(dropped) == len(threads), 15)
        ended.set()
        assert get(exporter.port) == "up 1\n"
        slow.append(socket.create_connection(("127.0.0.1", exporter.port)))
        began = time.monotonic()
    assert time.monotonic() - began < 1.4
    for client in slow:
        client.close()


def test_clients_that_reset_the_connection_are_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    with Exporter(("127.0.0.1", 0), lambda: "up 1\n") as exporter:
        for said in (b"GE", b"GET /metrics HTTP/1.1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", exporter.port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(said)
        assert get(exporter.port) == "up 1\n"
    assert capfd.readouterr() == ("", "")


def test_edge_detect_serves_them_without_the_web_extra(monitored: Bundle, tmp_path: Path) -> None:
    folder = save_faces(tmp_path / "faces", range(60))
    command = [sys.executable, "-c", WITHOUT_WEB, str(folder), "--watch", "--model", str(monitored.path)]
    command += ["--faces", "off", "--metrics", "0", "--monitor", str(tmp_path / "state"), "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            said = next(line for line in running.stderr if "metrics at port" in line)
            threading.Thread(target=running.stderr.read, daemon=True).start()
            port = int(re.search(r"port (\d+)", said)[1])
            deadline = time.monotonic() + 60
            while (found := samples(get(port)))["deepfake_edge_frames_total{}"] < 60 and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            running.terminate()
            running.wait(30)
    assert found["deepfake_edge_frames_total{}"] == 60
    assert sum(value for name, value in found.items() if "faces_total" in name) == 60
    assert found['deepfake_edge_model_info{"architecture": "redness", "version": "1.4.0"}'] == 1
    assert found["deepfake_edge_latency_seconds_count{}"] == 60
    assert found["deepfake_edge_drift_faces{}"] == 60
    assert found['deepfake_edge_drift_state{"state": "ok"}'] == 1
    assert sum(value for name, value in found.items() if "drift_state" in name) == 1
    reason = next(name for name in found if "drift_info" in name)
    assert "faces are like those" in reason
    assert any("drift_level" in name and "sharpness" in name for name in found)
    assert found["process_resident_memory_bytes{}"] > 20e6
    assert 0 < time.time() - found["process_start_time_seconds{}"] < 600


def test_the_hottest_zone_of_a_type_counts(tmp_path: Path) -> None:
    for number, (name, value) in enumerate([("acpitz", "27800"), ("x86_pkg_temp", "51000"), ("acpitz", "30000")]):
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}" / "type").write_text(name)
        (tmp_path / f"thermal_zone{number}" / "temp").write_text(value)
    assert temperatures(tmp_path) == {"acpitz": 30.0, "x86_pkg_temp": 51.0}
    assert temperature(tmp_path) == 51.0


def promtool(*arguments: str, given: str | None = None) -> str:
    """Run Debian's promtool; return what it printed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool: Debian's package prometheus")
    done = subprocess.run([program, *arguments], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def served(monitored: Bundle, tmp_path: Path) -> str:
    """The metrics of a monitor that has seen nothing yet, with a camera."""
    found = DetectMetrics(monitored, Monitor(monitored, tmp_path / "state"))
    found.up.set(1, "/dev/video0")
    return found.text()


def test_promtool_accepts_the_metrics(served: str) -> None:
    assert "error" not in promtool("check", "metrics", given=served)


def test_promtool_accepts_the_rules_and_they_fire(tmp_path: Path) -> None:
    assert "8 rules found" in promtool("check", "rules", str(FILES / "alerts.yml"))
    (tmp_path / "test.yml").write_text(f"""
rule_files: [{FILES / "alerts.yml"}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'deepfake_edge_model_info{{version="1.4.0", instance="gone"}}'
        values: '1x8'
      - series: 'deepfake_edge_model_info{{version="1.4.0", instance="door"}}'
        values: '1x8'
      - series: 'deepfake_edge_model_info{{version="1.5.0", instance="door"}}'
        values: '_x8 1x30'
      - series: 'deepfake_edge_drift_state{{state="drift", instance="door"}}'
        values: '0x9 1x20'
      - series: 'deepfake_edge_source_up{{source="/dev/video0", instance="door"}}'
        values: '1x9 0x20'
    alert_rule_test:
      - {{eval_time: 9m, alertname: FacesDrift, exp_alerts: []}}
      - eval_time: 20m
        alertname: FacesDrift
        exp_alerts:
          - exp_labels: {{severity: page, state: drift, instance: door}}
            exp_annotations:
              summary: "door: faces are no longer like those the detector was measured on"
              description: See deepfake_edge_drift_info for the reason; until it is found, take verdicts as hints.
      - eval_time: 20m
        alertname: CameraLost
        exp_alerts:
          - exp_labels: {{severity: page, source: /dev/video0, instance: door}}
            exp_annotations:
              summary: "door: /dev/video0 gives no frames"
      - eval_time: 20m
        alertname: BoardGone
        exp_alerts:
          - exp_labels: {{severity: page, instance: gone}}
            exp_annotations:
              summary: "gone: no figures for 5 minutes, after some in the last 30 days"
""")
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "test.yml"))


def test_a_board_that_is_gone_stays_an_alert(tmp_path: Path) -> None:
    gone = """
          - exp_labels: {severity: page, instance: gone}
            exp_annotations:
              summary: "gone: no figures for 5 minutes, after some in the last 30 days\""""
    (tmp_path / "test.yml").write_text(f"""
rule_files: [{FILES / "alerts.yml"}]
evaluation_interval: 1h
tests:
  - interval: 1h
    input_series:
      - series: 'deepfake_edge_model_info{{version="1.4.0", instance="gone"}}'
        values: '1x8'
    alert_rule_test:
      - {{eval_time: 8h, alertname: BoardGone, exp_alerts: []}}
      - eval_time: 2d
        alertname: BoardGone
        exp_alerts: {gone}
      - eval_time: 29d
        alertname: BoardGone
        exp_alerts: {gone}
      - {{eval_time: 31d, alertname: BoardGone, exp_alerts: []}}
""")
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "test.yml"))


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:deepfake_edge|process)_[a-z_]+", text))


def test_rules_and_dashboard_name_metrics_that_exist(served: str) -> None:
    known = {re.sub(r"\{.*| .*", "", line) for line in served.splitlines() if not line.startswith("#")}
    known |= set(re.findall(r"# TYPE (\S+)", served))
    for name in ("alerts.yml", "dashboard.json"):
        used = names_in((FILES / name).read_text(encoding="utf-8"))
        assert len(used) > 5
        assert used <= known, used - known


def test_rules_and_dashboard_name_labels_that_exist(served: str) -> None:
    names = {match[1] for match in re.finditer(r"[{,](\w+)=\"", served)} | {"verdict", "instance", "le"}
    for name in ("alerts.yml", "dashboard.json"):
        text = (FILES / name).read_text(encoding="utf-8").replace('\\"', '"')
        used = set(re.findall(r"[{,](\w+)=~?\"", text))
        for listed in re.findall(r"(?:by|ignoring) \(([\w, ]+)\)", text):
            used |= set(listed.split(", "))
        used |= set(re.findall(r"\$labels\.(\w+)", text))
        assert used >= {"state", "instance", "le"}
        assert used <= names, used - names


def test_the_dashboard_has_what_grafana_needs() -> None:
    dashboard = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= set(dashboard)
    assert dashboard.get("id") is None, "an id of another Grafana makes the import fail"
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert {"x", "y", "w", "h"} == set(place)
        assert place["x"] + place["w"] <= 24
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert set(re.findall(r"\$\{?(\w+)", target["expr"])) <= variables
            promtool_expression = target["expr"].replace("$instance", ".*")
            if shutil.which("promtool"):
                assert check_expression(promtool_expression)


def check_expression(expression: str) -> bool:
    """Return whether Prometheus parses an expression, as a rule."""
    rule = {"groups": [{"name": "any", "rules": [{"record": "any", "expr": expression}]}]}
    return "SUCCESS" in promtool("check", "rules", "/dev/stdin", given=json.dumps(rule))


def test_edge_serve_counts_uploads(monitored: Bundle, tmp_path: Path) -> None:
    settings = Settings(monitor=tmp_path / "state")
    with TestClient(create_app(Detector(monitored, faces="off"), settings), base_url="http://localhost") as client:
        for seed in range(3):
            file = io.BytesIO()
            drawn(seed, seed % 2).save(file, "PNG")
            answer = client.post("/predict", files={"image": file.getvalue()})
            assert answer.json()["drift"] == {"state": "unknown", "reason": "fewer than 50 faces so far"}
        found = samples(client.get("/metrics").text)
    assert found["deepfake_edge_drift_faces{}"] == 3
    assert found['deepfake_edge_drift_state{"state": "unknown"}'] == 1
    assert json.loads((tmp_path / "state" / "status.json").read_text())["faces"] == 3
