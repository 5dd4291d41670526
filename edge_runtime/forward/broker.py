"""The connection to an MQTT broker: availability, last will, TLS, and Home Assistant's discovery (extra `fleet`)."""

import importlib.metadata
import json
import logging
import re
import ssl
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge_runtime.errors import DeviceError, UsageError
from edge_runtime.printable import printable

log = logging.getLogger("edge_runtime")

PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEPALIVE_S = 30
LONGEST_PAUSE_S = 60
SHORT_S, SHORT = 10.0, 3
"""This many connections in a row that each end within SHORT_S are not a coincidence."""

WORST = (
    "{% set v = value_json.faces | map(attribute='verdict') | list %}"
    "{{ 'fake' if 'fake' in v else 'uncertain' if 'uncertain' in v else 'real' if v else 'no face' }}"
)
HIGHEST = (
    "{% set scores = value_json.faces | map(attribute='score') | select('number') | list %}"
    "{{ scores | max if scores else none }}"
)
DRIFT = "{{ value_json.drift.state if value_json.drift is defined else 'unknown' }}"


@dataclass(frozen=True)
class BrokerOptions:
    """Where and how to connect.

    Attributes:
        address: mqtt://HOST[:PORT], or mqtts:// for TLS.
        board: this board's name in topics.
        user, password_file: to log in with; the file's first line.
        ca, certificate, key: PEM files: the broker's authority (None: the system's), and this board's own.
        topic: first part of every topic.
        discovery: Home Assistant's prefix; empty for none.
    """

    address: str
    board: str
    user: str | None = None
    password_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    topic: str = "deepfake-edge"
    discovery: str = "homeassistant"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.board):
            raise UsageError(f"--board {self.board!r}: give letters, digits, - and _ only")
        for name, text in (("--topic", self.topic), ("--discovery", self.discovery or "none")):
            if not re.fullmatch(r"[\w-]+(/[\w-]+)*", text):
                raise UsageError(f"{name} {text!r}: give letters, digits, - and _ only, with / between levels")
        secure = self.target()[2]
        files = {"--ca": self.ca, "--cert": self.certificate, "--key": self.key}
        for name, path in files.items():
            if path and not secure:
                raise UsageError(f"{name} {path}: is used with TLS only; give the address as mqtts://HOST")
        if self.key and not self.certificate:
            raise UsageError(f"--key {self.key}: belongs to a certificate; give that with --cert")

    def target(self) -> tuple[str, int, bool]:
        """Return host, port, and whether to use TLS.

        Raises:
            UsageError: it is not an address of a broker.
        """
        try:
            parts = urlsplit(self.address)
            host, port = parts.hostname, parts.port
            # As the look-up will: a name of wrong form would end paho's thread.
            (host or "").encode("idna")
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in PORTS or parts.path.strip("/"):
            raise UsageError(f"{printable(self.address)}: not a broker; give mqtt://HOST or mqtts://HOST")
        if parts.username or parts.password:
            raise UsageError("the address holds a user or password; give --user and --password-file")
        return host, port or PORTS[parts.scheme], parts.scheme == "mqtts"


class Broker:
    """An MQTT connection that reopens itself. Messages are sent with QoS 1, and again after a reconnection.

    Args:
        options: where and how.

    Raises:
        UsageError: paho-mqtt is missing, or a file can't be used.
    """

    def __init__(self, options: BrokerOptions) -> None:
        try:
            import paho.mqtt.client as mqtt
        except ImportError:
            raise UsageError("edge-forward needs paho-mqtt; run pip install paho-mqtt") from None
        self._options = options
        base = f"{options.topic}/{options.board}"
        self.results, self._status = f"{base}/results", f"{base}/status"
        self._host, self._port, secure = options.target()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"deepfake-edge-{options.board}")
        if options.user is not None or options.password_file:
            client.username_pw_set(options.user or options.board, _password(options.password_file))
        if secure:
            _use_tls(client, options)
        client.will_set(self._status, "offline", qos=1, retain=True)
        client.reconnect_delay_set(1, LONGEST_PAUSE_S)
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_connect_fail = self._failed
        client.on_publish, client.on_message = self._published, self._asked
        self._client, self._told = client, ""
        # When the broker accepted this connection, and how many before it ended at once.
        self._accepted: float | None = None
        self._short = 0
        # Numbers of results that the broker has, and of messages that nobody waits for.
        self._acknowledged, self._others = set[int](), set[int]()
        self._lock, self.changed = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Connect in a thread of its own, and keep trying."""
        self._client.connect_async(self._host, self._port, KEEPALIVE_S)
        before = set(threading.enumerate())
        self._client.loop_start()
        self._threads = set(threading.enumerate()) - before

    def stop(self) -> None:
        """Say that the board is offline, and disconnect."""
        if self._client.is_connected():
            self._client.publish(self._status, "offline", qos=1, retain=True).wait_for_publish(5.0)
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection.

        Raises:
            DeviceError: paho's thread has ended, so that nothing would be sent any more.
        """
        if not all(thread.is_alive() for thread in self._threads):
            raise DeviceError(f"{self._host}:{self._port}: the connection's thread ended; run the command again")
        with self._lock:
            accepted = self._accepted
            if self._short and accepted is not None and time.monotonic() - accepted >= SHORT_S:
                self._short = 0
                self._tell("connected")
        return bool(self._client.is_connected())

    def send(self, payload: dict[str, Any]) -> int:
        """Send a result and return the number that `acknowledged` will have."""
        text = json.dumps(payload, ensure_ascii=False).encode("utf-8", "backslashreplace")
        return int(self._client.publish(self.results, text, qos=1).mid)

    def acknowledged(self, number: int) -> bool:
        """Return, once, whether the broker has acknowledged a message."""
        with self._lock:
            if number not in self._acknowledged:
                return False
            self._acknowledged.discard(number)
            return True

    def _connected(self, client: Any, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._tell(f"refuses ({reason})")
            return
        self._accepted = time.monotonic()
        if self._short < SHORT:
            self._tell("connected")
        # In paho's own thread, which reads the acknowledgement only after this.
        self._others.add(client.publish(self._status, "online", qos=1, retain=True).mid)
        if self._options.discovery:
            client.subscribe(f"{self._options.discovery}/status", qos=1)
            self._announce()
        self.changed.set()

    def _disconnected(self, client: Any, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._lock:
            accepted, self._accepted = self._accepted, None
        if not reason.is_failure:
            return
        if accepted is None:
            if not self._told.startswith("refuses"):
                self._tell("closes the connection at once; does it want mqtts://, or --cert and --key?")
            return
        self._short = self._short + 1 if time.monotonic() - accepted < SHORT_S else 0
        if self._short < SHORT:
            self._tell(f"connection lost ({reason}); trying again")
        else:
            name = self._options.board
            self._tell(f"ends each connection at once; if another board is named {name} too, give each its own --board")

    def _failed(self, client: Any, _: Any) -> None:
        # paho calls this while it handles the error.
        error = sys.exc_info()[1]
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"{error.verify_message}; check --ca, the address and this board's clock"
        else:
            why = getattr(error, "strerror", None) or str(error)
        self._tell(f"can't be reached ({why}); trying again")

    def _published(self, client: Any, _: Any, number: int, reason: Any, properties: Any) -> None:
        if number in self._others:
            self._others.discard(number)
            return
        with self._lock:
            self._acknowledged.add(number)
        self.changed.set()

    def _asked(self, client: Any, _: Any, message: Any) -> None:
        # Home Assistant says that it has started.
        if message.payload == b"online":
            self._announce()

    def _announce(self) -> None:
        topic = f"{self._options.discovery}/device/{self._identity}/config"
        self._others.add(self._client.publish(topic, json.dumps(self.discovery()), qos=1, retain=True).mid)

    @property
    def _identity(self) -> str:
        return f"deepfake_edge_{self._options.board}"

    def discovery(self) -> dict[str, Any]:
        """Return the description of this board's sensors (Home Assistant, MQTT device discovery)."""
        version = importlib.metadata.version("deepfake-edge")
        sensors: dict[str, dict[str, Any]] = {
            "verdict": {"name": "Verdict", "device_class": "enum", "value_template": WORST}
            | {"options": ["real", "fake", "uncertain", "no face"]},
            "score": {"name": "Probability of fake", "value_template": HIGHEST, "state_class": "measurement"},
            "faces": {"name": "Faces", "value_template": "{{ value_json.faces | count }}"},
            "drift": {"name": "Drift", "device_class": "enum", "value_template": DRIFT}
            | {"options": ["unknown", "ok", "watch", "drift"]},
        }
        return {
            "device": {
                "identifiers": [self._identity],
                "name": self._options.board,
                "manufacturer": "deepfake-edge",
                "sw_version": version,
            },
            "origin": {"name": "deepfake-edge", "sw_version": version},
            "components": {
                name: {"platform": "sensor", "unique_id": f"{self._identity}_{name}", **values}
                for name, values in sensors.items()
            },
            "state_topic": self.results,
            "availability_topic": self._status,
            "qos": 1,
        }

    def _tell(self, what: str) -> None:
        """Log a change, once while it lasts."""
        if what != self._told:
            self._told = what
            log.warning(f"{self._host}:{self._port}: {printable(what)}")


def _password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        password = path.read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
    except (OSError, ValueError) as error:
        raise UsageError(f"--password-file {path}: can't be read ({error}); check the file") from None
    if not password:
        raise UsageError(f"--password-file {path}: its first line is empty; write the password there")
    return password


def _use_tls(client: Any, options: BrokerOptions) -> None:
    files = {"--ca": options.ca, "--cert": options.certificate, "--key": options.key}
    named = " ".join(f"{option} {path}" for option, path in files.items() if path)
    try:
        context = ssl.create_default_context(cafile=options.ca)
        if options.certificate:
            context.load_cert_chain(options.certificate, options.key)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{named}: can't be used ({getattr(error, 'strerror', None) or error}); give PEM files"
        ) from None
    client.tls_set_context(context)
