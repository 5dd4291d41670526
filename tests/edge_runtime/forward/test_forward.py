"""edge-forward against a real broker that is killed, and killed itself."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import ClassVar

import pytest
from helpers.mosquitto import Mosquitto
from helpers.waiting import until
from jinja2 import Template

from edge_runtime.errors import DeviceError, UsageError
from edge_runtime.forward.broker import Broker, BrokerOptions
from edge_runtime.judging.results import FaceResult, FrameResult
from edge_runtime.model.contract import Verdict
from edge_runtime.monitoring.alarm import DriftState
from edge_runtime.sinks.lines import LineFile

KILLS = int(os.environ.get("BROKER_KILLS", "4"))
"""50 by hand."""


@pytest.fixture
def broker(tmp_path):
    (tmp_path / "broker").mkdir()
    found = Mosquitto(tmp_path / "broker")
    found.start()
    yield found
    found.kill()


@pytest.fixture(autouse=True)
def _nothing_runs_on():
    yield
    while Forwarder.running:
        process = Forwarder.running.pop()
        process.kill()
        process.wait()


class Subscriber:
    """Collects every message; it reconnects by itself."""

    def __init__(self, port: int, *topics: str) -> None:
        mqtt = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt")
        self.messages: list[tuple[str, str, bool]] = []
        self.ready = False
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="subscriber")
        self.client.reconnect_delay_set(0.1, 0.1)
        self.client.on_connect = lambda client, *_: client.subscribe([(topic, 1) for topic in topics])
        self.client.on_disconnect = lambda *_: setattr(self, "ready", False)
        self.client.on_subscribe = lambda *_: setattr(self, "ready", True)
        self.client.on_message = lambda _, __, found: self.messages.append(
            (found.topic, found.payload.decode(), bool(found.retain))
        )
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()
        until(lambda: self.ready)

    def of(self, topic: str) -> list[str]:
        return [text for found, text, _ in list(self.messages) if found == topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Forwarder:
    """The command, as a process; all are killed at the end of a test."""

    running: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, folder: Path, *options: str, state: Path = Path("forward.json")) -> None:
        self._folder = folder
        self._command = [sys.executable, "-m", "edge_runtime.forward.cli", *options]
        self._command += ["--spool", "results.jsonl", "--board", "door", "--state", str(state)]
        self.start()

    def start(self) -> None:
        with (self._folder / "forward.log").open("a") as log:
            self.process = subprocess.Popen(self._command, cwd=self._folder, stdout=log, stderr=log)
        self.running.append(self.process)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


def line(number: int) -> str:
    faces = [{"verdict": "fake", "score": 0.99}]
    return json.dumps(
        {"source": "camera", "frame": number, "time": f"{time.time():.6f}", "state": "ok", "faces": faces}
    )


@pytest.mark.slow
def test_no_result_is_lost_and_repeats_have_the_same_id(broker, tmp_path):
    results = Subscriber(broker.port, "deepfake-edge/door/results")
    forwarder = Forwarder(tmp_path, f"mqtt://127.0.0.1:{broker.port}", "--discovery", "")
    written, stop = [0], threading.Event()

    def write() -> None:
        with LineFile(tmp_path / "results.jsonl", begins='{"source":', rotate_at=200_000) as file:
            while not stop.wait(0.01):
                file.append(line(written[0]))
                written[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    draw = random.Random(5)
    try:
        for kill in range(KILLS):
            seen = len(results.messages)
            until(lambda seen=seen: len(results.messages) > seen + draw.randrange(1, 60), 60)
            if kill % 2:
                forwarder.kill()
                forwarder.start()
            else:
                broker.kill()
                # Nobody could deliver what a broker without subscribers accepts.
                forwarder.process.send_signal(signal.SIGSTOP)
                until(lambda: not results.ready)
                broker.start()
                until(lambda: results.ready)
                forwarder.process.send_signal(signal.SIGCONT)
    finally:
        stop.set()
        writer.join()

    def received() -> dict[str, int]:
        return {found["id"]: found["frame"] for found in map(json.loads, results.of("deepfake-edge/door/results"))}

    until(lambda: len(received()) >= written[0], 60)
    assert forwarder.end() == 0
    results.close()
    assert sorted(received().values()) == list(range(written[0]))
    total = len(results.messages)
    print(f"{KILLS} kills, {written[0]} results, {total - written[0]} sent again with the same id")
    # Nothing is left to send.
    assert json.loads((tmp_path / "forward.json").read_text())["offset"] == (tmp_path / "results.jsonl").stat().st_size


@pytest.mark.slow
def test_home_assistant_finds_the_board_and_knows_whether_it_is_there(broker, tmp_path):
    home = Subscriber(broker.port, "homeassistant/#", "deepfake-edge/#")
    status, config = "deepfake-edge/door/status", "homeassistant/device/deepfake_edge_door/config"
    forwarder = Forwarder(tmp_path, f"mqtt://127.0.0.1:{broker.port}")
    until(lambda: home.of(config), 30)
    found = json.loads(home.of(config)[0])
    assert found["availability_topic"] == status
    assert found["state_topic"] == "deepfake-edge/door/results"
    assert set(found["components"]) == {"verdict", "score", "faces", "drift"}
    assert {part["platform"] for part in found["components"].values()} == {"sensor"}
    until(lambda: home.of(status) == ["online"])
    home.client.publish("homeassistant/status", "online", qos=1)
    until(lambda: len(home.of(config)) == 2)
    (tmp_path / "results.jsonl").write_text(line(0) + "\n")
    until(lambda: (tmp_path / "forward.json").exists())
    forwarder.kill()  # The broker sends its last will.
    until(lambda: home.of(status) == ["online", "offline"])
    forwarder.start()
    until(lambda: home.of(status)[2:] == ["online"], 30)
    assert forwarder.end() == 0
    until(lambda: home.of(status)[3:] == ["offline"])
    assert len(home.of("deepfake-edge/door/results")) == 1
    home.close()
    late = Subscriber(broker.port, status, config)
    until(lambda: len(late.messages) == 2)
    assert {retained for *_, retained in late.messages} == {True}
    late.close()


def certificate(folder: Path, name: str, subject: str, days: int = 2) -> tuple[Path, Path]:
    """Make a certificate that vouches for itself, and its key; with negative days it is over."""
    made, key, request = (folder / f"{name}{end}" for end in (".pem", "-key.pem", ".request"))
    asked = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={subject}", "-keyout", str(key), "-out", str(request)]
    signed = ["-in", str(request), "-signkey", str(key), "-days", str(days), "-copy_extensions", "copy", "-out"]
    for command in (["req", "-new", "-newkey", "rsa:2048", "-nodes", *asked], ["x509", "-req", *signed, str(made)]):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return made, key


@pytest.mark.slow
def test_tls_and_the_password_come_from_files(tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    ca, key = certificate(folder, "ca", "IP:127.0.0.1")
    door, door_key = certificate(folder, "door", "DNS:door")
    passwords = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "door", "secret"], check=True, capture_output=True)
    trusted = folder / "trusted.pem"
    trusted.write_text(ca.read_text() + door.read_text())
    broker = Mosquitto(
        folder,
        access=f"allow_anonymous false\npassword_file {passwords}",
        tls=f"cafile {trusted}\ncertfile {ca}\nkeyfile {key}\nrequire_certificate true\n",
    )
    broker.start()
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "wrong").write_text("guess\n")
    (tmp_path / "results.jsonl").write_text(line(0) + "\n")
    own = ["--cert", str(door), "--key", str(door_key)]
    log = tmp_path / "forward.log"

    def reached() -> bool:
        return (tmp_path / "forward.json").exists()

    def forwarder(host: str, password: str, *files: str) -> Forwarder:
        log.write_text("")
        address = f"mqtts://{host}:{broker.port}"
        return Forwarder(tmp_path, address, "--user", "door", "--password-file", password, "--discovery", "", *files)

    try:
        for host, password, files, says in (
            ("127.0.0.1", "wrong", ["--ca", str(ca), *own], "refuses (Not authorized)"),
            ("127.0.0.1", "password", own, "can't be reached (self-signed certificate; check --ca, the address and"),
            ("localhost", "password", ["--ca", str(ca), *own], "Hostname mismatch, certificate is not valid for"),
            (
                "127.0.0.1",
                "password",
                ["--ca", str(ca)],
                "closes the connection at once; does it want mqtts://, or --cert and --key?",
            ),
        ):
            refused = forwarder(host, password, *files)
            until(lambda says=says: says in log.read_text(), 30)
            refused.end()
            assert not reached()
        accepted = forwarder("127.0.0.1", "password", "--ca", str(ca), *own)
        until(reached, 30)
        assert accepted.end() == 0
    finally:
        broker.kill()
    assert "secret" not in log.read_text()


@pytest.mark.slow
def test_certificate_of_another_year_is_named(tmp_path):
    """A broker whose certificate is over, or a board whose clock is a year ahead."""
    folder = tmp_path / "broker"
    folder.mkdir()
    ca, key = certificate(folder, "ca", "IP:127.0.0.1", days=-1)
    broker = Mosquitto(folder, tls=f"cafile {ca}\ncertfile {ca}\nkeyfile {key}\n")
    broker.start()
    log = tmp_path / "forward.log"
    try:
        Forwarder(tmp_path, f"mqtts://127.0.0.1:{broker.port}", "--ca", str(ca))
        until(lambda: "can't be reached (certificate has expired; check --ca, the address and" in log.read_text(), 30)
    finally:
        broker.kill()


@pytest.mark.slow
def test_two_boards_of_one_name_are_told(broker, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Forwarder(tmp_path / name, f"mqtt://127.0.0.1:{broker.port}")
    log = tmp_path / "one/forward.log"
    until(lambda: "if another board is named door too, give each its own --board" in log.read_text(), 60)
    assert log.read_text().count("connection lost") <= 3


@pytest.mark.slow
def test_a_connection_that_lasts_is_told_after_short_ones(broker, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("edge_runtime.forward.broker.SHORT_S", 60.0)
    found = Broker(BrokerOptions(f"mqtt://127.0.0.1:{broker.port}", board="door", discovery=""))
    found.start()
    for _ in range(3):
        until(lambda: found.connected)
        other = Forwarder(tmp_path, f"mqtt://127.0.0.1:{broker.port}", "--discovery", "")
        until(lambda: not found.connected)
        other.kill()
    until(lambda: "ends each connection at once" in caplog.messages[-1])
    until(lambda: found.connected)
    assert "ends each connection at once" in caplog.messages[-1]
    monkeypatch.setattr("edge_runtime.forward.broker.SHORT_S", 1.0)
    until(lambda: found.connected and caplog.messages[-1].endswith(": connected"))
    broker.kill()
    until(lambda: "connection lost" in caplog.messages[-1])
    found.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_end_of_the_connections_thread_is_one_line():
    pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt")
    found = Broker(BrokerOptions("mqtt://broker", board="door"))
    found._host = "broker..local"
    found.start()

    def ended() -> bool:
        try:
            return found.connected
        except DeviceError as error:
            return "broker..local:1883: the connection's thread ended" in str(error)

    until(ended)
    found.stop()


@pytest.mark.slow
def test_full_disk_delays_the_place_and_not_the_results(broker, tmp_path, small_disk):
    results = Subscriber(broker.port, "deepfake-edge/door/results")
    (small_disk / "fill").write_bytes(b"x" * (1 << 20))
    (tmp_path / "results.jsonl").write_text("".join(line(number) + "\n" for number in range(3)))
    place = small_disk / "place.json"
    forwarder = Forwarder(tmp_path, f"mqtt://127.0.0.1:{broker.port}", "--discovery", "", state=place)
    until(lambda: "No space left on device" in (tmp_path / "forward.log").read_text(), 30)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write(line(3) + "\n")
    until(lambda: len(results.messages) == 4)
    (small_disk / "fill").unlink()
    until(place.exists)
    assert forwarder.end() == 0
    assert json.loads(place.read_text())["offset"] == (tmp_path / "results.jsonl").stat().st_size
    assert len(results.messages) == 4
    results.close()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"address": "http://broker"}, "not a broker"),
        ({"address": "mqtt://user:secret@broker"}, "give --user and --password-file"),
        ({"board": "front door"}, "--board 'front door'"),
        ({"board": "hall/door"}, "--board 'hall/door': give letters, digits, - and _ only"),
        ({"topic": "a/#"}, "--topic 'a/#': give letters, digits, - and _ only, with / between levels"),
        ({"address": "mqtt://broker..local"}, "not a broker"),
        ({"address": f"mqtt://{'b' * 64}.local"}, "not a broker"),
        ({"password_file": Path("missing")}, "--password-file missing"),
        ({"password_file": Path(os.devnull)}, "--password-file /dev/null: its first line is empty"),
        ({"discovery": "a/#"}, "--discovery 'a/#'"),
        ({"address": "mqtts://broker", "ca": Path("missing.pem")}, "--ca missing.pem"),
        ({"ca": Path("ca.pem")}, "--ca ca.pem: is used with TLS only"),
        ({"address": "mqtts://broker", "key": Path("key.pem")}, "--key key.pem: belongs to a certificate"),
    ],
)
def test_unusable_options_are_one_line(changes, says):
    pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt")
    with pytest.raises(UsageError, match=says.replace("(", r"\(")) as error:
        Broker(BrokerOptions(**{"address": "mqtt://broker", "board": "door", **changes}))
    assert "secret" not in str(error.value)


def test_home_assistant_reads_each_sensor_from_a_result():
    face = FaceResult((0, 0, 9, 9), 0.9, 1, 0.75, Verdict.FAKE)
    result = FrameResult("door", 0, datetime.now(timezone.utc), faces=(face,))
    parts = Broker(BrokerOptions("mqtt://localhost", board="door")).discovery()["components"]

    def shown(result):
        values = json.loads(json.dumps(result.to_dict()))
        return {name: Template(part["value_template"]).render(value_json=values) for name, part in parts.items()}

    assert shown(result) == {"verdict": "fake", "score": "0.75", "faces": "1", "drift": "unknown"}
    drifted = replace(result, faces=(), drift={"state": "drift", "reason": "faces are darker"})
    assert shown(drifted) == {"verdict": "no face", "score": "None", "faces": "0", "drift": "drift"}
    assert parts["drift"]["options"] == [state.value for state in DriftState]
