"""Cameras that send JPEGs over HTTP, as an endless stream or one for each request."""

import base64
import contextlib
import hashlib
import http.client
import os
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Mapping, Sequence

from edge_runtime.errors import SourceError
from edge_runtime.sources import SourceOptions
from edge_runtime.sources.address import Address
from edge_runtime.sources.mjpeg import BLOCK, JpegSplitter, JpegView
from edge_runtime.sources.reconnect import CONNECT_S, Load

SNAPSHOT_FPS = 5.0
"""Requests a second to a camera that answers each with a single JPEG."""


class HttpCamera:
    """An open camera: a stream of JPEGs, or an address that gives one JPEG and is asked again at a steady rate."""

    def __init__(self, address: Address, options: SourceOptions) -> None:
        self._address, self._name, self._timeout_s = address, address.name, options.stall_timeout_s
        self._interval_s = min(1.0 / (options.fps or SNAPSHOT_FPS), self._timeout_s / 2)
        self._opener = urllib.request.build_opener(_Handler(self._timeout_s))
        self._ready: deque[bytes] = deque()
        self._request()

    def _request(self) -> None:
        self._splitter, self._given, self._asked = JpegSplitter(), 0, time.monotonic()
        try:
            try:
                self._response = self._open(self._address.url)
            except urllib.error.HTTPError as error:
                known = self._address.user is not None and self._address.has_origin_of(error.url)
                if error.code != http.HTTPStatus.UNAUTHORIZED or not known:
                    raise
                # The camera's own address, which may be another path after a redirect.
                challenges = error.headers.get_all("WWW-Authenticate", [])
                self._response = self._open(error.url, authorization(challenges, self._address, error.url))
        except urllib.error.HTTPError as error:
            raise SourceError(f"{self._name}: answers {error.code} {error.reason}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise SourceError(f"{self._name}: can't be reached ({reason})") from None

    def _open(self, url: str, authorization: str | None = None) -> http.client.HTTPResponse:
        request = urllib.request.Request(url, headers={"User-Agent": "edge-detect"})
        if authorization is not None:
            # Unredirected: another host must not get the password.
            request.add_unredirected_header("Authorization", authorization)
        response: http.client.HTTPResponse = self._opener.open(request, timeout=min(self._timeout_s, CONNECT_S))
        return response

    def read(self) -> Load:
        """Wait for the next JPEG; raises SourceError if the stream ended, or there was no JPEG for too long."""
        began = time.monotonic()
        while not self._ready:
            try:
                data = self._response.read1(BLOCK)
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise SourceError(f"{self._name}: broke off ({error})") from None
            self._ready.extend(self._splitter.feed(data))
            self._given += len(self._ready)
            if not data and not self._ready:
                if not self._given or self._response.headers.get_content_maintype() == "multipart":
                    raise SourceError(f"{self._name}: ended")
                time.sleep(max(0.0, self._asked + self._interval_s - time.monotonic()))
                self._request()
            elif time.monotonic() - began > self._timeout_s and not self._ready:
                raise SourceError(f"{self._name}: no JPEG for {self._timeout_s:g} s")
        return JpegView(self._ready.popleft())

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Gives the whole head of an answer CONNECT_S to arrive; after that, the stream may pause for `pause_s`."""

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self._pause_s = pause_s

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an http:// address; urllib finds this method by its name."""
        return self.do_open(_connection(http.client.HTTPConnection, self._pause_s), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an https:// address."""
        return self.do_open(_connection(http.client.HTTPSConnection, self._pause_s), request)


def _connection(kind: type[http.client.HTTPConnection], pause_s: float) -> type[http.client.HTTPConnection]:
    class Connection(kind):  # type: ignore[misc, valid-type]
        def getresponse(self) -> http.client.HTTPResponse:
            # A camera that sends a byte now and then never runs into the socket's own timeout.
            late, connected = threading.Event(), self.sock

            def hang_up() -> None:
                late.set()
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)

            deadline = threading.Timer(CONNECT_S, hang_up)
            deadline.daemon = True
            deadline.start()
            try:
                response: http.client.HTTPResponse = super().getresponse()
            except (OSError, http.client.HTTPException):
                if not late.is_set():
                    raise
            finally:
                deadline.cancel()
            if late.is_set():
                raise TimeoutError(f"no complete answer for {CONNECT_S:g} s")
            connected.settimeout(pause_s)
            return response

    return Connection


def authorization(challenges: Sequence[str], address: Address, url: str) -> str:
    """Return the answer to a camera's challenges: Digest if offered, else Basic; ValueError for an unknown Digest."""
    user, password = address.user or "", address.password or ""
    digests = [challenge.partition(" ")[2] for challenge in challenges if challenge.lower().startswith("digest ")]
    if not digests:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def weakness(challenge: Mapping[str, str]) -> int:
        name = challenge.get("algorithm", "MD5").upper().removesuffix("-SESS")
        return [*HASHES, name].index(name)

    fields = [urllib.request.parse_keqv_list(urllib.request.parse_http_list(digest)) for digest in digests]
    path = urllib.parse.urlsplit(url)._replace(scheme="", netloc="", fragment="").geturl()
    return digest_authorization(min(fields, key=weakness), user, password, path or "/")


HASHES = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}
"""Algorithms of Digest, strongest first (RFC 7616, section 6.1)."""


def digest_authorization(challenge: Mapping[str, str], user: str, password: str, path: str) -> str:
    """Return the answer to a Digest challenge for a GET of `path` (RFC 7616, section 3.4); ValueError if unknown."""
    algorithm = challenge.get("algorithm", "MD5")
    protections = [name.strip() for name in challenge.get("qop", "").split(",") if name.strip()]
    hash_kind = HASHES.get(algorithm.upper().removesuffix("-SESS"))
    if hash_kind is None or (protections and "auth" not in protections):
        raise ValueError(f"it asks for Digest with {algorithm} and {protections}, which is not supported")

    def hashed(*parts: str) -> str:
        return hash_kind(":".join(parts).encode()).hexdigest()

    realm, nonce = challenge.get("realm", ""), challenge.get("nonce", "")
    client_nonce, count = os.urandom(8).hex(), "00000001"
    secret = hashed(user, realm, password)
    if algorithm.upper().endswith("-SESS"):
        secret = hashed(secret, nonce, client_nonce)
    between = (count, client_nonce, "auth") if protections else ()
    response = hashed(secret, nonce, *between, hashed("GET", path))
    answer = {"username": user, "realm": realm, "nonce": nonce, "uri": path, "response": response}
    text = ", ".join(f'{name}="{value}"' for name, value in answer.items())
    text += f", algorithm={algorithm}" if "algorithm" in challenge else ""
    text += f', qop=auth, nc={count}, cnonce="{client_nonce}"' if protections else ""
    text += f', opaque="{challenge["opaque"]}"' if "opaque" in challenge else ""
    return f"Digest {text}"
