"""edge-forward against a real broker that is killed, and killed itself."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest
from helpers.mosquitto import Mosquitto
from helpers.waiting import until

from edge_runtime.errors import UsageError
from edge_runtime.forward.broker import Broker, BrokerOptions
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

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._command = [sys.executable, "-m", "edge_runtime.forward.cli", *options]
        self._command += ["--spool", "results.jsonl", "--board", "door", "--state", "forward.json"]
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
    assert set(found["components"]) == {"verdict", "score", "faces"}
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


@pytest.mark.slow
def test_tls_and_the_password_come_from_files(tmp_path):
    (tmp_path / "broker").mkdir()
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    certificate, key = tmp_path / "broker/ca.pem", tmp_path / "broker/key.pem"
    subject = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*new, *subject], check=True, capture_output=True)
    passwords = tmp_path / "broker/passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "door", "secret"], check=True, capture_output=True)
    broker = Mosquitto(
        tmp_path / "broker",
        access=f"allow_anonymous false\npassword_file {passwords}",
        tls=f"cafile {certificate}\ncertfile {certificate}\nkeyfile {key}\n",
    )
    broker.start()
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "wrong").write_text("guess\n")
    (tmp_path / "results.jsonl").write_text(line(0) + "\n")
    options = [f"mqtts://127.0.0.1:{broker.port}", "--user", "door", "--discovery", ""]
    log = tmp_path / "forward.log"

    def reached() -> bool:
        return (tmp_path / "forward.json").exists()

    try:
        for files, says in (
            (["--password-file", "wrong", "--ca", str(certificate)], "refuses (Not authorized)"),
            (["--password-file", "password"], "can't be reached"),
        ):
            log.write_text("")
            forwarder = Forwarder(tmp_path, *options, *files)
            until(lambda says=says: says in log.read_text(), 30)
            forwarder.end()
            assert not reached()
        forwarder = Forwarder(tmp_path, *options, "--password-file", "password", "--ca", str(certificate))
        until(reached, 30)
        assert forwarder.end() == 0
    finally:
        broker.kill()
    assert "secret" not in log.read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"address": "http://broker"}, "not a broker"),
        ({"address": "mqtt://user:secret@broker"}, "give --user and --password-file"),
        ({"board": "front door"}, "--board 'front door'"),
        ({"topic": "a/#"}, "--topic 'a/#'"),
        ({"password_file": Path("missing")}, "--password-file missing"),
        ({"address": "mqtts://broker", "ca": Path("missing.pem")}, "--ca missing.pem"),
    ],
)
def test_unusable_options_are_one_line(changes, says):
    pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt")
    with pytest.raises(UsageError, match=says.replace("(", r"\(")) as error:
        Broker(BrokerOptions(**{"address": "mqtt://broker", "board": "door", **changes}))
    assert "secret" not in str(error.value)
