"""Who may come in, and what every answer carries."""

import re

import pytest

from edge_runtime.web.http.security import HEADERS, knows_host, new_session, same_secret, session_holds
from edge_runtime.web.settings import Settings

TOKEN = "a-token-of-the-tests-0123456789"
GUARDED = ("/", "/live", "/model", "/metrics", "/openapi.json", "/problems/not-found")


@pytest.fixture(scope="module")
def guarded(opened, whole_detector):
    with opened(whole_detector, Settings(token=TOKEN)) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", GUARDED)
def test_without_the_token_nothing_is_told(guarded, path):
    for headers in ({}, bearer("wrong"), bearer(""), bearer(TOKEN[:-1]), bearer(TOKEN + "x"), {"Authorization": TOKEN}):
        answer = guarded.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["type"] == "/problems/token-needed"


def test_without_the_token_nothing_is_judged(guarded, face):
    answer = guarded.post("/predict", files={"image": face()})
    assert answer.status_code == 401
    assert "verdict" not in answer.text


@pytest.mark.parametrize("path", GUARDED[:1] + GUARDED[2:])
def test_with_the_token_everything_is_served(guarded, path):
    assert guarded.get(path, headers=bearer(TOKEN)).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/login", "/static/style.css"])
def test_health_and_the_way_in_need_no_token(guarded, path):
    assert guarded.get(path).status_code == 200


def test_a_path_that_only_looks_open_is_not(guarded):
    for path in ("/static/../model", "/static/%2e%2e/model", "/healthz/../model", "//model", "/login/"):
        assert guarded.get(path).status_code in (401, 404), path
        assert "contract" not in guarded.get(path).text


def test_a_browser_is_led_to_the_page_that_asks_for_the_token(guarded):
    answer = guarded.get("/", headers={"Accept": "text/html"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


def test_signing_in_with_the_token_begins_a_session_and_signing_out_ends_it(opened, whole_detector):
    with opened(whole_detector, Settings(token=TOKEN)) as client:
        wrong = client.post("/login", data={"token": "wrong"})
        assert wrong.status_code == 401
        assert 'role="alert"' in wrong.text
        answer = client.post("/login", data={"token": TOKEN}, follow_redirects=False)
        cookie = answer.headers["set-cookie"]
        assert answer.status_code == 303
        assert TOKEN not in cookie
        assert "HttpOnly" in cookie
        assert re.search("samesite=strict", cookie, re.IGNORECASE)
        assert client.get("/model").status_code == 200
        client.post("/logout")
        assert client.get("/model").status_code == 401


def test_the_language_that_somebody_chose_stays_through_signing_in_and_out(opened, whole_detector):
    def led_to(answer) -> str:
        assert answer.status_code == 303
        return answer.headers["location"]

    with opened(whole_detector, Settings(token=TOKEN), follow_redirects=False) as client:
        assert led_to(client.get("/?lang=zh-Hans", headers={"Accept": "text/html"})) == "/login?lang=zh-Hans"
        assert led_to(client.post("/login?lang=zh-Hans", data={"token": TOKEN})) == "/?lang=zh-Hans"
        assert 'action="/logout?lang=zh-Hans"' in client.get("/?lang=zh-Hans").text
        assert led_to(client.post("/logout?lang=zh-Hans")) == "/login?lang=zh-Hans"
        assert led_to(client.post("/login?lang=//evil.example", data={"token": TOKEN})) == "/?lang=en"


def test_behind_tls_the_cookie_travels_over_tls_alone(opened, whole_detector):
    with opened(whole_detector, Settings(token=TOKEN)) as client:
        answer = client.post("https://localhost/login", data={"token": TOKEN}, follow_redirects=False)
        assert "Secure" in answer.headers["set-cookie"]


def test_a_session_is_over_after_its_time_and_cannot_be_made_up():
    session = new_session(TOKEN, now=1000.0)
    until, _, signature = session.partition(".")
    assert session_holds(session, TOKEN, now=2000.0)
    assert not session_holds(session, TOKEN, now=1000.0 + 13 * 3600)
    assert not session_holds(session, "another token, 0123456789", now=2000.0)
    for made_up in ("", ".", f"{int(until) + 1}.{signature}", f"{until}.", "9" * 400 + ".0", f"x.{signature}", "é.é"):
        assert not session_holds(made_up, TOKEN, now=2000.0)


def test_secrets_of_any_kind_of_text_are_compared():
    assert same_secret("é\udcff", "é\udcff")
    assert not same_secret("", "x")


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "board.lan:1"])
def test_the_names_of_this_machine_and_those_allowed_are_known(host):
    assert knows_host(host, Settings(hosts=("board.lan",)))


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[", "10.0.0.1"]
)
def test_a_name_that_somebody_lets_point_here_is_refused(opened, whole_detector, host):
    assert not knows_host(host, Settings())
    with opened(whole_detector) as client:
        answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["type"] == "/problems/wrong-host"


def test_another_site_cannot_use_a_browser_to_send_pictures(plain, face):
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    answer = plain.post("/predict", files={"image": face()}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/cross-site")


def test_another_site_may_link_here_but_not_take_pictures_or_figures_into_its_page(plain):
    def asked(path: str, mode: str, dest: str) -> int:
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
        return plain.get(path, headers=headers).status_code

    assert asked("/", "navigate", "document") == 200
    assert asked("/", "navigate", "iframe") == 403
    assert asked("/live/stream", "no-cors", "image") == 403
    assert asked("/live/events", "cors", "empty") == 403
    assert plain.get("/model", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_no_other_site_may_read_an_answer(plain):
    answer = plain.options(
        "/predict", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/predict", "/nothing", "/static/style.css", "/login", "/healthz"])
def test_every_answer_carries_the_headers(plain, path):
    answer = plain.get(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert answer.headers["cache-control"] == "no-store"


def test_the_policy_lets_nothing_in_from_elsewhere_and_no_inline_script():
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_a_failure_inside_tells_nothing_of_the_inside(opened, whole_detector, monkeypatch, face):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the house")

    with opened(whole_detector) as client:
        monkeypatch.setattr("edge_runtime.web.service.uploads.prepare_face", fail)
        answer = client.post("/predict", files={"image": face()})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.json()["type"] == "/problems/internal"
