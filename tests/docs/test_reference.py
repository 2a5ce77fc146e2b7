"""The reference is complete: whatever exists has its heading or its row; and every link leads somewhere."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import unquote

import pytest
import typer
from typer.main import get_command

from factledger import client
from factledger.cli import terminal
from factledger.cli.commands import app as commands
from factledger.client.ledger import At
from factledger.core import events, times
from factledger.core.errors import Category
from factledger.core.facts import VALUE_TYPES
from factledger.http import problems
from factledger.http.app import create_app
from factledger.reading import Question
from factledger.settings import PREFIX, Settings
from factledger.wiring import open_ledgers
from tests.docs.launcher import ROOT

DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PACKAGE = ROOT / "service" / "factledger"

# What the edges say by themselves, without a LedgerError.
OTHER_CODES = {
    "events-rejected",
    "internal-error",
    "request-refused",
    "unexpected",
    *(code for code, _ in problems._FRAMEWORK.values()),
}

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def headings(page: Path) -> list[str]:
    """The headings of a page, without their markup."""
    return [match[2].replace("`", "") for match in _HEADING.finditer(prose(page))]


def anchor(heading: str) -> str:
    """The anchor that a heading has on the web, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sections(page: Path) -> dict[str, str]:
    """The text below each heading, down to the next heading of its level or above."""
    text = prose(page)
    found = list(_HEADING.finditer(text))
    result = {}
    for i, match in enumerate(found):
        end = next((f.start() for f in found[i + 1 :] if len(f[1]) <= len(match[1])), len(text))
        result[match[2].replace("`", "")] = text[match.end() : end]
    return result


def rows(section: str) -> dict[str, list[str]]:
    """The rows of the tables in a section, by each name in code that their first cell holds."""
    found: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line.startswith("|"):
            first, *others = (cell.strip() for cell in line.strip("|").split("|"))
            for name in re.findall(r"`([^`]+)`", first):
                found[name] = others
    return found


def missing(wanted: Any, documented: Any) -> list[str]:
    return sorted(set(wanted) - set(documented))


# --- settings


def test_every_setting_is_documented_with_its_default() -> None:
    documented = sections(REFERENCE / "settings.md")
    wanted = {f"{PREFIX}{name.upper()}": field for name, field in Settings.model_fields.items()}
    assert {name for name in documented if name.startswith(PREFIX)} == wanted.keys()
    for name, field in wanted.items():
        default = re.search(r"^Default: `([^`]*)`", documented[name], re.MULTILINE)
        assert default, name
        if field.default_factory is None:
            assert default[1] == str(field.default).lower(), name


# --- command line


def options(command: Any) -> set[str]:
    return {max(p.opts, key=len) for p in command.params if p.param_type_name == "option"} | {"--help"}


def arguments(command: Any) -> set[str]:
    named = (p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument")
    return {re.sub(r"\W", "", name) for name in named}


def known_commands() -> Mapping[str, Any]:
    group = get_command(commands)
    assert isinstance(group, typer.core.TyperGroup)
    return group.commands


def test_every_command_is_documented_with_its_options_and_arguments() -> None:
    documented = sections(REFERENCE / "cli.md")
    of_all = rows(documented["Options of all commands"])
    coordinates = rows(documented["Read coordinates as options"])
    shared = of_all.keys() | coordinates.keys()
    listed = rows(prose(REFERENCE / "cli.md").split("\n## ")[0])
    assert missing(known_commands(), listed) == []
    for name, command in known_commands().items():
        own = rows(documented[name])
        assert missing(options(command), own.keys() | shared) == [], name
        assert missing(arguments(command), own) == [], name
        assert missing((o for o in own if o.startswith("--")), options(command)) == [], f"{name} has no such option"
    existing = set().union(*map(options, known_commands().values()))
    assert missing((o for o in shared if o.startswith("--")), existing) == []


def test_every_read_coordinate_is_documented() -> None:
    wanted = {field.name for field in fields(Question)}
    over_http = rows(sections(REFERENCE / "http.md")["Read coordinates"])
    as_options = rows(sections(REFERENCE / "cli.md")["Read coordinates as options"])
    assert missing(wanted, over_http) == []
    assert missing((f"--{name.replace('_', '-')}" for name in wanted), as_options) == []


def test_every_exit_code_is_documented() -> None:
    table = sections(REFERENCE / "cli.md")["Exit codes"]
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert documented == {0, terminal.UNEXPECTED, terminal.INTERRUPTED, *terminal.EXIT_CODES.values()}


# --- problems


def codes() -> Iterator[tuple[str, Category | None]]:
    """Every code that a LedgerError is made with, and its category."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error") and len(node.args) > 1:
                category, code = node.args[:2]
                if isinstance(category, ast.Attribute) and isinstance(code, ast.Constant):
                    yield str(code.value), Category[category.attr]


def test_every_problem_is_documented() -> None:
    documented = {name for name in sections(REFERENCE / "problems.md") if re.fullmatch(r"[a-z]+(-[a-z]+)*", name)}
    assert documented == {code for code, _ in codes()} | OTHER_CODES


@pytest.mark.parametrize(("code", "category"), sorted(set(codes()), key=str), ids=lambda value: str(value))
def test_problems_state_their_status_and_exit_code(code: str, category: Category) -> None:
    stated = sections(REFERENCE / "problems.md")[code].strip().splitlines()[0]
    status, exit_code = re.match(r"(?:HTTP (\d+), e|E)xit code (\d)\. ", stated + " ").groups()  # type: ignore[union-attr]
    assert int(exit_code) == terminal.EXIT_CODES[category]
    if status is not None:
        assert int(status) == problems.STATUSES[category]


# --- events


def leaves(shape: events._Shape, prefix: str = "") -> Iterator[str]:
    """The fields of a shape, those of objects within it with dots."""
    for name, check in shape.fields.items():
        yield prefix + name
        if isinstance(check, events._Shape):
            yield from leaves(check, f"{prefix}{name}.")


@pytest.mark.parametrize("kind", events._DATA)
def test_every_field_of_every_event_is_documented(kind: str) -> None:
    section = sections(REFERENCE / "events.md")[kind]
    documented = rows(section)
    shape = events._DATA[kind]
    assert set(documented) == set(leaves(shape))
    required = {name for name, cells in documented.items() if cells[1:] == ["required"] and "." not in name}
    assert required == set(shape.required)
    for name in shape.fields:
        # What is one of a few words names each of them.
        words = {"polarity": events.POLARITIES, "certainty": events.CERTAINTIES, "reason": events.REASONS}
        words |= {"judgement": events.JUDGEMENTS, "method": events.METHODS, "value_type": VALUE_TYPES}
        assert missing(words.get(name, ()), re.findall(r"`([^`]+)`", documented[name][0])) == []


def test_every_attribute_of_an_event_is_documented() -> None:
    documented = sections(REFERENCE / "events.md")
    assert missing(events._ENVELOPE, rows(documented["The envelope"])) == []
    assert set(rows(documented["What is read back"])) == set(events.LEDGER_ATTRIBUTES)


# --- HTTP


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The API as it describes itself."""
    ledgers = open_ledgers(f"sqlite:///{tmp_path_factory.mktemp('described') / 'ledger.db'}")
    described: dict[str, Any] = create_app(ledgers, Settings(log_level="error")).openapi()
    ledgers.close()
    return described


def test_every_route_is_documented_with_its_parameters_and_headers(description: dict[str, Any]) -> None:
    documented = sections(REFERENCE / "http.md")
    routes = {
        f"{method.upper()} {path}": route
        for path, methods in description["paths"].items()
        for method, route in methods.items()
    }
    headed = {name for name in documented if re.match(r"(GET|PUT|POST|PATCH|DELETE) ", name)}
    assert headed == {*routes, "GET /v1/openapi.json"}
    assert missing(headed, rows(prose(REFERENCE / "http.md").split("\n## ")[0])) == []
    common = documented["Read coordinates"]
    for name, route in routes.items():
        section = documented[name]
        takes_coordinates = "#read-coordinates" in section
        known = rows(section).keys() | (rows(common).keys() if takes_coordinates else set())
        told = set(re.findall(r"`([^`]+)`", section + (common if takes_coordinates else "")))
        for parameter in route.get("parameters", []):
            if parameter["in"] == "query":
                assert parameter["name"] in known, (name, parameter["name"])
            elif parameter["in"] == "header":
                assert parameter["name"] in told, (name, parameter["name"])
        for answer in route["responses"].values():
            assert missing(answer.get("headers", {}), told | {"Retry-After"}) == [], name


def test_every_answer_is_documented_field_by_field(description: dict[str, Any]) -> None:
    text = (REFERENCE / "http.md").read_text(encoding="utf-8") + (REFERENCE / "problems.md").read_text(encoding="utf-8")
    told = set(re.findall(r'[`"](\w+)[`"]', text))
    shapes = description["components"]["schemas"]
    posted = {"PostedEvent", "PostedBatch", "PostedData"}
    answers = set[str]()
    pending = [name for name in shapes if name.endswith(("Answer", "Problem", "List", "Page", "Line", "Summary"))]
    while pending:
        name = pending.pop()
        if name not in answers | posted | {"RecordedEvent"}:
            answers.add(name)
            pending += re.findall(r"#/components/schemas/(\w+)", str(shapes[name]))
    assert len(answers) > 20
    fields_of = {(name, field) for name in answers for field in shapes[name].get("properties", {})}
    described_with_events = {"Document", "Quotation"} | {n for n in answers if n.endswith("Value")} | {"Quantity"}
    assert sorted((n, f) for n, f in fields_of if f not in told and n not in described_with_events) == []


# --- the Python client


def names_in(section: str) -> set[str]:
    """Every name that a section says in code."""
    return set(re.findall(r"[a-z_]\w*", " ".join(re.findall(r"`([^`]+)`", section)), re.IGNORECASE))


def test_every_name_of_the_client_is_documented() -> None:
    page = (REFERENCE / "client.md").read_text(encoding="utf-8").split("\n## ", 1)[1]
    documented = {name.partition("(")[0]: (name, cells) for name, cells in rows(page).items()}
    public = {name for name in client.__all__ if name not in ("Ledger", "Posting")}
    assert missing(public, documented) == []
    for name in public:
        found = getattr(client, name)
        told = names_in(" ".join(documented[name][1]))
        if isinstance(found, type) and is_dataclass(found):
            inherited = documented["Evidence"][1] if issubclass(found, client.Evidence) else []
            assert missing((field.name for field in fields(found)), told | names_in(" ".join(inherited))) == [], name
        elif inspect.isfunction(found):
            shared = {"id", "source", "time", "extensions"} if name in MAKERS else set()
            assert missing(inspect.signature(found).parameters, names_in(f"`{documented[name][0]}`") | shared) == []


MAKERS = ("assertion", "retraction", "identity", "predicate", "agent", "policy")


def test_every_method_and_coordinate_of_the_client_is_documented() -> None:
    documented = sections(REFERENCE / "client.md")
    of_ledger = documented["Ledger"]
    methods = {name for name in vars(client.Ledger) if not name.startswith("_")}
    listed = rows(of_ledger).keys()
    assert {re.sub(r"\(.*", "", name) for name in listed if "(" in name} == methods
    assert missing(inspect.signature(client.Ledger).parameters, listed) == []
    assert missing({*(field.name for field in fields(Question)), "min_size"}, names_in(of_ledger)) == []
    of_posting = {name for name in vars(client.Posting) if not name.startswith("_")}
    assert missing(of_posting, names_in(documented["What posting returns"])) == []
    assert {*get_type_hints(At)} == {*(field.name for field in fields(Question)), "min_size"}


# --- EDTF


def edtf_tables() -> list[tuple[str, ...]]:
    text = prose(REFERENCE / "edtf.md")
    return re.findall(r"^\| `([^`]+)` \| (\S+) \| (\S+) \| (\S+) \| (\S+) \| .+ \|$", text, re.MULTILINE)


@pytest.mark.parametrize("row", edtf_tables(), ids=lambda row: row[0])
def test_spans_are_as_documented(row: tuple[str, ...]) -> None:
    span = times.resolve_span(row[0], times.parse_moment("2021-09-07"))
    bounds = (span.starts_earliest, span.starts_latest, span.ends_earliest, span.ends_latest)
    assert row[1:] == tuple(shown(bound) for bound in bounds)


def shown(bound: int) -> str:
    if bound in (times.BEGINNING, times.FOREVER):
        return "ever"
    return times.format_instant(bound).removesuffix("T00:00:00.000000Z").replace(".000000Z", "Z")


def test_what_is_refused_as_edtf_is_as_documented() -> None:
    section = sections(REFERENCE / "edtf.md")["What is refused"]
    assert len(edtf_tables()) > 20
    assert len(rows(section)) > 10
    for text in rows(section):
        with pytest.raises(ValueError, match=r"\w"):
            times.parse_valid(text)


# --- links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        path, _, fragment = target.partition("#")
        there = (page.parent / unquote(path)).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if fragment:
            assert fragment in map(anchor, headings(there)), target


def test_the_index_lists_every_page() -> None:
    index = {(DOCS / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(DOCS / "README.md"))}
    listed_elsewhere = {page for page in PAGES if page.parent.name == "decisions" and page.name != "README.md"}
    assert {*PAGES} - {ROOT / "README.md", DOCS / "README.md"} - listed_elsewhere - index == set()
    decisions = {
        (DOCS / "decisions" / link).resolve() for link in _LINK.findall(prose(DOCS / "decisions" / "README.md"))
    }
    assert listed_elsewhere - decisions == set()


def test_no_two_headings_of_a_page_share_an_anchor() -> None:
    for page in PAGES:
        anchors = [anchor(heading) for heading in headings(page)]
        assert len(anchors) == len(set(anchors)), page
