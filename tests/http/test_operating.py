"""Operating: ledgers, health, and what stands around every request."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog
from fastapi import FastAPI
from starlette.testclient import TestClient

from factledger.core.errors import Category, LedgerError
from factledger.http import operating, problems
from factledger.http.app import create_app
from factledger.ledger import Ledger, Ledgers
from factledger.settings import Settings
from tests.http.posting import ENTITIES, EVENTS, assertion, pointers, post, problem, size

# --- ledgers


def test_a_ledger_is_created_once(client: TestClient) -> None:
    made = client.put("/v1/ledgers/news", json={"strict": True})
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/ledgers/news"
    assert made.json()["ledger"] == "news"
    assert made.json()["strict"] is True
    again = client.put("/v1/ledgers/news", json={"strict": True})
    assert again.status_code == 200
    assert again.json() == made.json()
    problem(client.put("/v1/ledgers/news", json={"strict": False}), 409, "ledger-exists")
    problem(client.put("/v1/ledgers/news"), 409, "ledger-exists")


def test_a_ledger_that_many_create_is_made_once(client: TestClient) -> None:
    for number in range(5):
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _, n=number: client.put(f"/v1/ledgers/l{n}"), range(12)))
        assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"strict":false}'])
def test_a_ledger_is_not_strict_unless_asked(client: TestClient, body: bytes) -> None:
    made = client.put("/v1/ledgers/plain", content=body, headers={"content-type": "application/json"})
    assert made.status_code == 201
    assert made.json()["strict"] is False
    assert client.put("/v1/ledgers/plain").status_code == 200


SETTINGS: list[tuple[bytes, int, list[str]]] = [
    (b"{", 400, [""]),
    (b"[]", 422, [""]),
    (b"null", 422, [""]),
    (b'{"strict":1}', 422, ["/strict"]),
    (b'{"strict":"true"}', 422, ["/strict"]),
    (b'{"strict":null}', 422, ["/strict"]),
    (b'{"strict":true,"strict":false}', 400, [""]),
    (b'{"stricter":true,"a/b":1}', 422, ["/stricter", "/a~1b"]),
    (b" " * 70_000, 413, []),
]


def test_settings_that_cannot_be_heeded_are_refused(client: TestClient) -> None:
    for body, status, where in SETTINGS:
        answer = client.put("/v1/ledgers/plain", content=body, headers={"content-type": "application/json"})
        problem(answer, status, answer.json()["code"])
        assert pointers(answer) == where
    problem(client.get("/v1/ledgers/plain"), 404, "ledger-not-found")


def test_settings_are_json(client: TestClient) -> None:
    answer = client.put("/v1/ledgers/plain", content=b"{}", headers={"content-type": "text/plain"})
    problem(answer, 415, "unsupported-media-type")


def test_a_name_that_does_not_fit_is_422(client: TestClient) -> None:
    for name in ("News", "-a", "a.b", "a%2Fb", "%00", "a" * 64, "é", "a%20b"):
        problem(client.put(f"/v1/ledgers/{name}"), 422, "ledger-name")
    assert client.put(f"/v1/ledgers/{'a' * 63}").status_code == 201
    assert client.put("/v1/ledgers/%6eews").status_code == 201
    assert client.get("/v1/ledgers/news").status_code == 200


def test_main_is_there_from_the_start(client: TestClient) -> None:
    answer = client.get("/v1/ledgers/main")
    assert answer.status_code == 200
    assert answer.headers["ledger-size"] == "0"
    assert answer.json() == {
        "ledger": "main",
        "strict": False,
        "created_at": answer.json()["created_at"],
        "size": 0,
        "recorded_at": None,
        "root": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "projected_size": 0,
        "verifier_key": None,
        "former_verifier_keys": [],
    }
    post(client, assertion("1"))
    shown = client.get("/v1/ledgers/main").json()
    assert (shown["size"], shown["projected_size"]) == (1, 1)
    assert shown["recorded_at"] is not None
    problem(client.get("/v1/ledgers/nowhere"), 404, "ledger-not-found")


def test_ledgers_are_listed_in_pages(client: TestClient) -> None:
    assert [shown["ledger"] for shown in client.get("/v1/ledgers").json()["ledgers"]] == ["main"]
    for name in ("c", "a", "b", "z"):
        client.put(f"/v1/ledgers/{name}")
    found: list[str] = []
    path: str | None = "/v1/ledgers?limit=2"
    while path is not None:
        answer = client.get(path)
        found += [shown["ledger"] for shown in answer.json()["ledgers"]]
        path = answer.json()["next"]
        assert answer.headers.get("link") == (path and f'<{path}>; rel="next"')
    assert found == ["a", "b", "c", "main", "z"]
    for query, name in (
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("cursor=a", "cursor"),
        ("after=" + "a" * 65, "after"),
    ):
        assert pointers(client.get(f"/v1/ledgers?{query}")) == [f"/query/{name}"]


# --- health


def test_it_lives_and_is_ready(client: TestClient) -> None:
    for path, status in (("/livez", "alive"), ("/readyz", "ready")):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": status})
        assert answer.headers["cache-control"] == "no-store"


def not_ready(client: TestClient) -> list[Any]:
    answer = client.get("/readyz")
    shown = problem(answer, 503, "not-ready")
    assert "retry-after" in answer.headers
    assert client.get("/livez").status_code == 200
    return list(shown["errors"])


def test_it_is_not_ready_without_a_database(
    client: TestClient, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> Any:
        raise LedgerError(Category.UNAVAILABLE, "database-unavailable", "away")

    monkeypatch.setattr(ledgers.database, "writing", away)
    assert [fault["pointer"] for fault in not_ready(client)] == ["/database"]


def test_it_is_not_ready_when_commits_may_be_lost(client: TestClient, ledgers: Ledgers) -> None:
    with ledgers.database.engine.connect() as connection:
        off = "PRAGMA synchronous=NORMAL" if ledgers.database.dialect == "sqlite" else "SET synchronous_commit = off"
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute(off)
        raw.commit()
    assert [fault["pointer"] for fault in not_ready(client)] == ["/durability"]


def test_it_is_not_ready_before_it_is_migrated(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating, "current_and_latest", lambda _database: ("0001", "0002"))
    faults = not_ready(client)
    assert faults == [{"pointer": "/migrations", "detail": "are at 0001, and this version of the service needs 0002"}]


# --- around every request


def test_the_root_links_to_what_there_is(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.json()["service"] == "factledger"
    for link in answer.json()["links"].values():
        assert client.get(link).status_code == 200


def test_nothing_is_a_404(client: TestClient) -> None:
    for path in ("/nowhere", "/v1", "/v1/ledgers/", "/v1/ledgers/main/", "/docs", "/redoc", "/livez/", "/%00"):
        problem(client.get(path), 404, "route-not-found")


METHODS = [
    ("POST", "/v1/ledgers/main", "GET, HEAD, PUT"),
    ("DELETE", EVENTS, "GET, HEAD, POST"),
    ("PUT", f"{EVENTS}/0", "GET, HEAD"),
    ("PATCH", f"{ENTITIES}/a%2Fb", "GET, HEAD"),
    ("POST", "/livez", "GET, HEAD"),
    ("OPTIONS", "/", "GET, HEAD"),
]


def test_a_method_that_a_path_does_not_take_is_405(client: TestClient) -> None:
    for method, path, allowed in METHODS:
        answer = client.request(method, path)
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == allowed


def test_a_request_keeps_its_id_or_gets_one(client: TestClient) -> None:
    assert client.get("/livez", headers={"x-request-id": "abc-123"}).headers["x-request-id"] == "abc-123"
    made = {client.get("/livez").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    for unfit in ("a b", "x" * 200, "<script>", ""):
        given = client.get("/livez", headers={"x-request-id": unfit}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{24}", given)
    assert client.get("/nowhere", headers={"x-request-id": "abc"}).headers["x-request-id"] == "abc"


def test_every_answer_forbids_sniffing(client: TestClient) -> None:
    for answer in (client.get("/"), client.get("/nowhere"), post(client, {}), client.get(EVENTS)):
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_log_has_a_line_for_every_request_and_no_content(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structlog._config._CONFIG, "default_wrapper_class", structlog.BoundLogger)
    with structlog.testing.capture_logs() as logged:
        post(client, assertion("secret-id", subject="person:secret", value="secret"), headers={"x-request-id": "r1"})
        client.get(f"{ENTITIES}/person:secret/why?predicate=location")
        client.get(f"{ENTITIES}/person:secret?secret=1")
        client.head("/secret")
    assert "secret" not in str(logged)
    assert [(line["event"], line["method"], line["route"], line["status"]) for line in logged] == [
        ("request", "POST", "/v1/ledgers/{ledger}/events", 201),
        ("request", "GET", "/v1/ledgers/{ledger}/entities/{entity}/why", 200),
        ("request", "GET", "/v1/ledgers/{ledger}/entities/{entity}", 422),
        ("request", "HEAD", None, 404),
    ]
    assert logged[0]["request_id"] == "r1"
    assert all(line["duration_ms"] > 0 for line in logged)


@pytest.mark.parametrize("path", [f"{ENTITIES}/person:a", EVENTS])
def test_what_nobody_thought_of_is_500_and_tells_nothing(
    client: TestClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("Zanzibar")

    for name in ("entity", "events", "append"):
        monkeypatch.setattr(ledger, name, fail)
    with structlog.testing.capture_logs() as logged:
        answer = client.get(path, headers={"x-request-id": "r1"})
        posted = post(client, assertion("1"))
    for answered in (answer, posted):
        problem(answered, 500, "internal-error")
        assert "Zanzibar" not in answered.text
    assert answer.headers["x-request-id"] == "r1"
    failed = [line for line in logged if line["log_level"] == "error"]
    assert [line["error"] for line in failed] == ["ZeroDivisionError"] * 2
    assert failed[0]["request_id"] == "r1"
    assert "test_operating" in failed[0]["trail"][-1]
    assert "Zanzibar" not in str(logged)


def test_an_answer_that_breaks_off_is_not_taken_for_whole(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        yield b"{}\n"
        raise ZeroDivisionError("Zanzibar")

    monkeypatch.setattr("factledger.http.reading._lines", fail)
    with pytest.raises(Exception, match=r"^$") as broken, structlog.testing.capture_logs() as logged:
        client.get(EVENTS, headers={"accept": "application/x-ndjson"})
    assert type(broken.value).__name__ == "CutOffError"
    assert broken.value.__cause__ is None
    assert "Zanzibar" not in str(logged)


def test_every_category_has_its_status() -> None:
    assert problems.STATUSES.keys() == set(Category)
    for category, status in problems.STATUSES.items():
        answer = problems.respond(LedgerError(category, "some-code", "Why."))
        assert answer.status_code == status
        assert answer.media_type == "application/problem+json"
        assert ("retry-after" in answer.headers) == (status in (429, 503))


def test_shutting_down_records_what_waits_and_closes_the_ledgers(ledgers: Ledgers) -> None:
    app: FastAPI = create_app(ledgers, Settings())
    with TestClient(app) as client:
        post(client, assertion("1"))
        assert size(client) == 1
        appender = app.state.service.appender
    assert not appender._writer.is_alive()
