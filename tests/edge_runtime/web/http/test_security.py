"""Access control, sessions, and the headers of every answer."""

import re
import socket
import time
from contextlib import ExitStack

import httpx2
import pytest
from helpers.waiting import until
from starlette.requests import HTTPConnection

from edge_runtime.web.http.request_limits import MOST_LOGINS
from edge_runtime.web.http.security import HEADERS, knows_host, same_secret
from edge_runtime.web.http.sessions import SESSION_S, TICKET_S, Sessions
from edge_runtime.web.http.throttle import client_address
from edge_runtime.web.settings import ServiceLimits, Settings

TOKEN = "a-token-of-the-tests-0123456789"
GUARDED = ("/", "/live", "/model", "/metrics", "/openapi.json", "/problems/not-found")


@pytest.fixture(scope="module")
def guarded(opened, whole_detector):
    with opened(whole_detector, Settings(token=TOKEN)) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", GUARDED)
def test_nothing_is_served_without_the_token(guarded, path):
    for headers in ({}, bearer("wrong"), bearer(""), bearer(TOKEN[:-1]), bearer(TOKEN + "x"), {"Authorization": TOKEN}):
        answer = guarded.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["type"] == "/problems/token-needed"


def test_everything_is_served_with_the_token(guarded, face):
    assert guarded.post("/predict", files={"image": face()}).status_code == 401
    assert {guarded.get(path, headers=bearer(TOKEN)).status_code for path in GUARDED if path != "/live"} == {200}


def test_only_health_and_login_need_no_token(guarded):
    for path in ("/healthz", "/readyz", "/login", "/static/style.css"):
        assert guarded.get(path).status_code == 200
    for path in ("/static/../model", "/static/%2e%2e/model", "/healthz/../model", "//model", "/login/../model"):
        answer = guarded.get(path)
        assert answer.status_code in (401, 404)
        assert "contract" not in answer.text


def test_browsers_are_sent_to_the_login_page(guarded):
    answer = guarded.get("/", headers={"Accept": "text/html"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


def test_signing_in_and_out(opened, whole_detector):
    with opened(whole_detector, Settings(token=TOKEN)) as client:
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
        answer = client.post("/login", data={"token": TOKEN}, follow_redirects=False)
        assert answer.status_code == 303
        header = answer.headers["set-cookie"]
        assert TOKEN not in header
        assert "HttpOnly" in header
        assert re.search("samesite=strict", header, re.IGNORECASE)
        assert client.get("/model").status_code == 200
        stolen = dict(client.cookies)
        client.post("/logout")
        assert client.get("/model").status_code == 401
        client.cookies.update(stolen)
        assert client.get("/model").status_code == 401


def test_ticket_signs_in_once(opened, whole_detector):
    with opened(whole_detector, Settings(token=TOKEN), follow_redirects=False) as client:
        ticket = client.app.state.sessions.issue_ticket()
        assert client.get("/login/made-up").status_code == 401
        assert client.head(f"/login/{ticket}").status_code == 405
        answer = client.get(f"/login/{ticket}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert client.get("/model").status_code == 200
        client.cookies.clear()
        assert client.get(f"/login/{ticket}").status_code == 401
        assert client.get("/model").status_code == 401


def test_repeated_wrong_tokens_are_refused(opened, whole_detector, monkeypatch):
    monkeypatch.setattr("edge_runtime.web.http.login.WRONG_TOKEN_DELAY_S", 0.0)
    with opened(whole_detector, Settings(token=TOKEN), follow_redirects=False) as client:
        assert client.post("/login", data={"token": TOKEN}).status_code == 303
        statuses = [client.post("/login", data={"token": f"wrong{number}"}).status_code for number in range(12)]
        assert statuses == [401] * 10 + [429] * 2
        refused = client.post("/login", data={"token": TOKEN})
        assert refused.status_code == 429
        assert 50 <= int(refused.headers["retry-after"]) <= 60


def test_ipv6_clients_are_known_by_their_network():
    def address(host: str) -> str:
        return client_address(HTTPConnection({"type": "http", "headers": [], "client": (host, 1)}))

    assert address("2001:db8::1") == address("2001:db8::ffff:1") != address("2001:db8:0:1::1")
    assert address("10.0.0.1") != address("10.0.0.2")


def test_logins_take_no_slots_of_other_requests(served, whole_detector, face):
    limits = ServiceLimits(requests=1)
    request = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n"
    with served(whole_detector, Settings(token=TOKEN, limits=limits)) as address, ExitStack() as held:
        for _ in range(MOST_LOGINS):
            held.enter_context(socket.create_connection(address, timeout=10)).sendall(request)
        url = "http://{}:{}".format(*address)
        until(lambda: httpx2.post(f"{url}/login", data={"token": "x"}, timeout=10).status_code == 429)
        answer = httpx2.post(f"{url}/predict", files={"image": face()}, headers=bearer(TOKEN), timeout=20)
        assert answer.json()["prediction"] == 1


def test_chosen_language_survives_signing_in_and_out(opened, whole_detector):
    def location(answer) -> str:
        assert answer.status_code == 303
        return answer.headers["location"]

    with opened(whole_detector, Settings(token=TOKEN), follow_redirects=False) as client:
        assert location(client.get("/?lang=zh-Hans", headers={"Accept": "text/html"})) == "/login?lang=zh-Hans"
        assert location(client.post("/login?lang=zh-Hans", data={"token": TOKEN})) == "/?lang=zh-Hans"
        assert 'action="/logout?lang=zh-Hans"' in client.get("/?lang=zh-Hans").text
        assert location(client.post("/logout?lang=zh-Hans")) == "/login?lang=zh-Hans"
        assert location(client.post("/login?lang=//evil.example", data={"token": TOKEN})) == "/?lang=en"


def test_cookie_is_secure_behind_tls(opened, whole_detector):
    with opened(whole_detector, Settings(token=TOKEN)) as client:
        answer = client.post("https://localhost/login", data={"token": TOKEN}, follow_redirects=False)
        assert "Secure" in answer.headers["set-cookie"]


def test_sessions_and_tickets_expire(monkeypatch):
    sessions = Sessions(TOKEN)
    session, ticket = sessions.start(), sessions.issue_ticket()
    assert Sessions(TOKEN).is_valid(session)
    later = {"time": time.time() + SESSION_S + 60, "monotonic": time.monotonic() + TICKET_S + 1}
    monkeypatch.setattr("time.time", lambda: later["time"])
    monkeypatch.setattr("time.monotonic", lambda: later["monotonic"])
    assert not sessions.is_valid(session)
    assert not sessions.redeem_ticket(ticket)


@pytest.mark.parametrize("forged", ["", ".", "x", "9" * 400 + ".0", "é.é", "a.b.c", "of another token"])
def test_forged_sessions_are_refused(forged):
    if forged == "of another token":
        forged = Sessions("another token").start()
    sessions = Sessions(TOKEN)
    assert not sessions.is_valid(forged)
    sessions.end(forged)
    assert not sessions.is_valid(sessions.start()[:-1])


def test_secrets_of_any_text_are_compared():
    assert same_secret("é\udcff", "é\udcff")
    assert not same_secret("", "x")


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "board.lan:1"])
def test_loopback_and_allowed_hosts_are_known(host):
    assert knows_host(host, Settings(hosts=("board.lan",)))


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[", "10.0.0.1"]
)
def test_other_hosts_are_refused(plain, host):
    answer = plain.get("/", headers={"Host": host})
    assert (answer.status_code, answer.json()["type"]) == (421, "/problems/wrong-host")


@pytest.mark.parametrize(
    ("path", "mode", "destination", "status"),
    [
        ("/", "navigate", "document", 200),
        ("/", "navigate", "iframe", 403),
        ("/live/stream", "no-cors", "image", 403),
        ("/live/events", "cors", "empty", 403),
        ("/model", "", "", 403),
    ],
)
def test_other_sites_may_only_link(plain, path, mode, destination, status):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": destination}
    assert plain.get(path, headers=headers).status_code == status
    answer = plain.post("/predict", files={"image": b""}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/cross-site")
    answer = plain.options("/predict", headers={"Origin": "https://evil", "Access-Control-Request-Method": "POST"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/predict", "/nothing", "/static/style.css", "/login", "/healthz"])
def test_every_answer_has_the_security_headers(plain, path):
    answer = plain.get(path)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert answer.headers["cache-control"] == "no-store"


def test_internal_errors_reveal_nothing(opened, whole_detector, monkeypatch, face):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("internal secret")

    with opened(whole_detector) as client:
        monkeypatch.setattr("edge_runtime.web.service.uploads.prepare_face", fail)
        answer = client.post("/predict", files={"image": face()})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.json()["type"] == "/problems/internal"
