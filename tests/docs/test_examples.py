"""Every example of README.md and docs/ does what its page says; and what would not is noticed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil.example import SybilFailure

from tests.docs.examples import SHOWN_POSTGRES, Page, Place, matches_json, matches_text
from tests.docs.launcher import ROOT, waiting
from tests.postgres import PostgresServer

# Pages whose commands take minutes; their links are checked all the same.
NOT_RUN = {ROOT / "docs" / "explanation" / "performance.md"}
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - NOT_RUN)
WITH_EXAMPLES = [page for page in PAGES if "```" in page.read_text(encoding="utf-8")]


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a process waits that runs `factledger` commands."""
    address = tmp_path_factory.mktemp("launcher") / "socket"
    with waiting(address):
        yield address


@pytest.fixture
def place(tmp_path: Path, launcher: Path) -> Iterator[Place]:
    """A place to run the examples of a page without PostgreSQL."""
    made = Place(tmp_path, launcher)
    yield made
    made.close()


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_runs(page: Path, tmp_path: Path, launcher: Path, request: pytest.FixtureRequest) -> None:
    postgres = None
    if re.search(rf"^[^|]*//{re.escape(SHOWN_POSTGRES)}", page.read_text(encoding="utf-8"), re.MULTILINE):
        server: PostgresServer = request.getfixturevalue("postgres")
        postgres = server.create_database(f"docs_{page.stem.replace('-', '_')}").partition("://")[2]
    place = Place(tmp_path, launcher, postgres)
    try:
        Page(page, place).check()
    finally:
        place.close()


def test_the_pages_are_there() -> None:
    assert len(WITH_EXAMPLES) > 10


# --- the runner goes red when it should


def check(place: Place, text: str) -> None:
    path = place.directory / "page.md"
    path.write_text(text, encoding="utf-8")
    Page(path, place).check()


EVENT = '{"specversion": "1.0", "type": "factledger.identity.v1", "source": "human:a", "id": "1", "data": %s}'
SAME = '{"entities": ["a:1", "a:2"], "judgement": "same"}'
POST = "curl -s -H 'Content-Type: application/json' http://127.0.0.1:8000/v1/ledgers/main/events -d"


def fenced(language: str, source: str) -> str:
    return f"```{language}\n{source}\n```\n"


RIGHT = {
    "both streams": fenced("bash", "echo a; echo b >&2") + fenced("text", "a\nb"),
    "one shell a page": fenced("bash", "a=1") + "prose\n" + fenced("bash", "echo $a") + fenced("json", "1"),
    "a failure that is told": fenced("bash", "factledger show a:1 || echo $?") + fenced("text", "…\n3"),
    "excused": "<!-- not run: it would fail -->\n" + fenced("bash", "false"),
    "an event": fenced("json", EVENT % SAME),
    "a drawing": fenced("bash", "echo a") + "prose\n" + fenced("text", "a drawing"),
    "python": fenced("python", "a = 1") + fenced("python", "print(a)") + fenced("text", "1"),
    "a service": fenced("bash", f"{POST} '{EVENT % SAME}'") + fenced("json", '{"results": [{"position": 0, …}], …}'),
    "serving": fenced("bash", "factledger serve") + fenced("text", "factledger listens on http://127.0.0.1:8000\n…"),
    "a refusal that is shown": fenced("bash", f"{POST} '{{}}'") + fenced("json", '{"code": "invalid-event", …}'),
}
WRONG = {
    "another text": fenced("bash", "echo a") + fenced("text", "b"),
    "another value": fenced("bash", "echo 1") + fenced("json", "2"),
    "no JSON": fenced("bash", "echo no") + fenced("json", "1"),
    "a failure in the middle": fenced("bash", "false; true"),
    "a failure in a pipe": fenced("bash", "false | true"),
    "the end of the shell": fenced("bash", "exit 0") + fenced("bash", "true"),
    "a failing command": fenced("bash", "factledger show a:1"),
    "an invalid event": fenced("json", EVENT % '{"entities": ["a:1"], "judgement": "same"}'),
    "an elided event": fenced("json", EVENT % '{"entities": ["a:1", …], "judgement": "same"}'),
    "broken JSON": fenced("json", "{"),
    "another output of python": fenced("python", "print(1)") + fenced("text", "2"),
    "another language": fenced("ruby", "1"),
    "no language": fenced("", "1"),
    "a refusal at the end": fenced("bash", f"{POST} '{{}}'"),
    "a refusal before the next": fenced("bash", f"{POST} '{{}}'") + fenced("bash", "true"),
    "what does not serve": fenced("bash", "factledger serve --nowhere"),
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT.keys())
def test_a_page_that_is_right_passes(place: Place, text: str) -> None:
    check(place, text)


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_a_page_that_is_wrong_fails(place: Place, text: str) -> None:
    with pytest.raises(SybilFailure):
        check(place, text)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a   b", "a b\n"),
        ("a\n\n\nb", "a\nb"),
        ("a … c", "a b c"),
        ("a\n…\nd", "a\nb\nc\nd"),
        ("a\n…", "a"),
        (" ─── ", "──────"),
        ("(1.5)*", "(1.5)*"),
    ],
)
def test_texts_that_match(shown: str, printed: str) -> None:
    assert matches_text(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("a", "b"), ("a", "a\nb"), ("a … c", "a b"), ("a\n…\nd", "a\nb\nc"), ("a.c", "abc"), ("a …", "a b\nc")],
)
def test_texts_that_do_not_match(shown: str, printed: str) -> None:
    assert not matches_text(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ('{"a": 1, "b": [1, 2]}', '{"b":[1,2],"a":1}'),
        ('{"a": 1, …}', '{"a": 1, "b": 2}'),
        ('{"a": 1, …}', '{"a": 1}'),
        ('{…, "b": {…}}', '{"a": 1, "b": {"c": 1}}'),
        ('{"a": …}', '{"a": {"b": 1}}'),
        ('{"a": "2026-…Z"}', '{"a": "2026-01-01T00:00:00Z"}'),
        ("[1, …, 4]", "[1, 2, 3, 4]"),
        ("[…]", "[]"),
        ('{"a": "\\"…"}', '{"a": "\\"{"}'),
        ("1\n2", "1\n2\n"),
        ('{"a": {…}, "b": {…}, …}', '{"a": {}, "b": {}, "c": 1}'),
    ],
)
def test_json_that_matches(shown: str, printed: str) -> None:
    assert matches_json(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ('{"a": 1}', '{"a": 1, "b": 2}'),
        ('{"a": 1, "b": 2}', '{"a": 1}'),
        ('{"a": 1, …}', '{"a": 2, "b": 2}'),
        ('{"a": …}', "{}"),
        ("[1, …, 4]", "[1, 2, 3]"),
        ("[1, 2]", "[1, 2, 3]"),
        ("1", "true"),
        ('"1"', "1"),
        ('{"a": "x…z"}', '{"a": "xy"}'),
        ("1", "1\n2"),
        ("1\n2", "1"),
    ],
)
def test_json_that_does_not_match(shown: str, printed: str) -> None:
    assert not matches_json(shown, printed)
