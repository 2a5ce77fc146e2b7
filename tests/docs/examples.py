"""Runs the examples of the documentation: what docs/contributing.md promises about them, as code.

A fenced block is a command (`bash`, `python`), what a command printed (`text` or `json` directly below it), or an
event (`json` with a `specversion`). Commands run in the order of the page, in one shell, on a database of the page's
own; `…` in what is shown stands for whatever is left out there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from sybil import Document, Example, Region
from sybil.example import SybilFailure
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from factledger.core.encoding import parse_json
from factledger.core.errors import LedgerError
from factledger.core.events import read_event
from factledger.http.app import create_app
from factledger.settings import Settings
from factledger.wiring import open_ledgers, salt
from tests.docs.launcher import ROOT, write_client

SHOWN = "127.0.0.1:8000"  # where the pages say that the service is
SHOWN_POSTGRES = "factledger@127.0.0.1:5432/factledger"  # and the database, in URLs
SECONDS = 60  # that one block may take
PROGRAM = "import sys; from factledger.cli import main; sys.exit(main())"

ELISION = "…"
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^\n]+?) -->\s*\Z")
_PROGRAM = re.compile(r"(?:python3 run\.py|\.venv/bin/factledger)(?= )")
_PYTHON = re.compile(r"\.venv/bin/python(?= )")
_SERVING = re.compile(r"^factledger (?:serve|demo)\b(?!.*(?:--no-serve|\|\|)).*$", re.MULTILINE)
_PROBLEM = '"type":"/problems/'


class ExampleError(AssertionError):
    """An example that does not do what the page says."""


# --- what is shown against what was printed


def matches_text(shown: str, printed: str) -> bool:
    """Tell whether lines are as shown; blank lines, runs of blanks and the length of rules do not count.

    `…` stands for anything within its line, and by itself for any number of lines.
    """
    pattern = ""
    for line in _lines(shown):
        pattern += r"(?:[^\n]*\n)*?" if line == ELISION else _any(line, r"[^\n]*") + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(printed))) is not None


def _lines(text: str) -> list[str]:
    lines = (re.sub(r"[─━]+", "─", " ".join(line.split())) for line in text.splitlines())
    return [line for line in lines if line]


def _any(text: str, gap: str) -> str:
    return gap.join(re.escape(part) for part in text.split(ELISION))


def matches_json(shown: str, printed: str) -> bool:
    """Tell whether JSON texts are as shown.

    `…` in a string stands for any characters, as a member's value for any value, and among members or items for any
    number of them.
    """
    expected, found = _texts(_completed(shown)), _texts(printed)
    return _items_match(expected, found)


def _completed(text: str) -> str:
    """Return JSON in which each bare `…` is a member or an item of its own."""
    result: list[str] = []
    open_brackets: list[str] = []
    in_string = False
    for i, char in enumerate(text):
        if char == '"' and not (in_string and text[i - 1] == "\\"):
            in_string = not in_string
        elif not in_string and char in "{[":
            open_brackets.append(char)
        elif not in_string and char in "}]":
            open_brackets.pop()
        elif not in_string and char == ELISION:
            is_value = "".join(result).rstrip().endswith(":") or open_brackets[-1:] != ["{"]
            char = f'"{ELISION}"' if is_value else f'"{ELISION}": "{ELISION}"'
        result.append(char)
    return "".join(result)


def _texts(text: str) -> list[Any]:
    """Return the values of JSON texts that stand one after the other."""
    decoder, values, at = json.JSONDecoder(object_pairs_hook=_once), [], 0
    text = text.strip()
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        values.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) + max(0, [name for name, _ in pairs].count(ELISION) - 1) != len(pairs):
        raise ValueError("an object has the same key twice")
    return members


def _value_matches(shown: Any, found: Any) -> bool:
    if shown == ELISION:
        return True
    if isinstance(shown, dict) and isinstance(found, dict):
        named = {name: value for name, value in shown.items() if name != ELISION}
        complete = ELISION in shown or named.keys() == found.keys()
        return complete and all(name in found and _value_matches(value, found[name]) for name, value in named.items())
    if isinstance(shown, list) and isinstance(found, list):
        return _items_match(shown, found)
    if isinstance(shown, str) and isinstance(found, str):
        return re.fullmatch(_any(shown, ".*"), found, re.DOTALL) is not None
    return type(shown) is type(found) and bool(shown == found)


def _items_match(shown: list[Any], found: list[Any]) -> bool:
    if not shown:
        return not found
    if shown[0] == ELISION:
        return any(_items_match(shown[1:], found[skipped:]) for skipped in range(len(found) + 1))
    return bool(found) and _value_matches(shown[0], found[0]) and _items_match(shown[1:], found[1:])


# --- where the commands run


class Place:
    """A page's own directory, shell, database and service."""

    def __init__(self, directory: Path, launcher: Path, postgres: str | None = None) -> None:
        """Take an empty directory, where a launcher waits, and what stands for SHOWN_POSTGRES."""
        self.directory, self._postgres = directory, postgres
        self._service: contextlib.ExitStack = contextlib.ExitStack()
        self._port: int | None = None
        self._blocks = 0
        programs = directory / "programs"
        programs.mkdir()
        (directory / "docs").symlink_to(ROOT / "docs")  # the importers and their samples
        write_client(programs / "factledger", launcher)
        own = {name: value for name, value in os.environ.items() if not name.startswith("FACTLEDGER_")}
        self._environment = own | {
            "PATH": f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "service"),
            "HOME": str(directory),
            "XDG_DATA_HOME": str(directory / "data"),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "100",
        }
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=directory,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def close(self) -> None:
        """End the shell and the service."""
        self._service.close()
        self._shell.kill()
        self._shell.communicate()

    def run(self, source: str) -> str:
        """Run a block of shell commands and return what they print, on either stream.

        A command that serves goes on in the background; what it says until it listens is what it prints.
        """
        source, said = _PYTHON.sub("python", _PROGRAM.sub("factledger", source)), ""
        if (serving := _SERVING.search(source)) is not None:
            said = self._serve(serving[0])
            source = source.replace(serving[0], "")
        return said + self._shown(self._execute(self._actual(source)))

    def run_python(self, source: str, namespace: dict[str, Any]) -> str:
        """Run a block of Python and return what it prints."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(self._actual(source), "<example>", "exec"), namespace)
        return self._shown(printed.getvalue())

    def _actual(self, source: str) -> str:
        """Return a source with the addresses that stand for those in it."""
        if SHOWN in source:
            if self._port is None:
                self._serve_here()
            source = source.replace(SHOWN, f"127.0.0.1:{self._port}")
        if SHOWN_POSTGRES in source:
            assert self._postgres is not None, "this page has no PostgreSQL"
            source = source.replace(SHOWN_POSTGRES, self._postgres)
        return source

    def _shown(self, printed: str) -> str:
        if self._postgres is not None:
            printed = printed.replace(self._postgres, SHOWN_POSTGRES)
        return printed if self._port is None else printed.replace(f"127.0.0.1:{self._port}", SHOWN)

    def _execute(self, source: str) -> str:
        self._blocks += 1
        script = self.directory / "programs" / f"block-{self._blocks}"
        script.write_text(source, encoding="utf-8")
        assert self._shell.stdin is not None and self._shell.stdout is not None
        end = f"end of block {self._blocks}:"
        lines = [
            "set -o pipefail; failed=0; trap 'failed=$?' ERR",
            f"source '{script}' </dev/null",
            f"printf '\\n%s %s\\n' '{end}' \"$failed\"; trap - ERR",
        ]
        self._shell.stdin.write("".join(f"{line}\n" for line in lines))
        self._shell.stdin.flush()
        watchdog = threading.Timer(SECONDS, self._shell.kill)
        watchdog.start()
        printed = ""
        try:
            for line in self._shell.stdout:
                if line.startswith(end):
                    if (code := int(line.removeprefix(end))) != 0:
                        raise ExampleError(f"a command ended with code {code}, having printed:\n{printed}")
                    return printed
                printed += line
        finally:
            watchdog.cancel()
        raise ExampleError(f"the shell ended, or took more than {SECONDS} s, having printed:\n{printed}")

    def _serve(self, command: str) -> str:
        """Start the command that serves, as the page says, on a free port; return what it says."""
        self._service.close()
        self._port = _free_port()
        log = self.directory / "programs" / "service.log"
        program = f"{shlex.quote(sys.executable)} -c {shlex.quote(PROGRAM)}"
        actual = self._actual(command).replace("factledger", program, 1)
        script = f"{self._execute('export -p')}\nexec {actual} --port {self._port}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

        def stop() -> None:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                assert process.wait(SECONDS) == 0, "Ctrl-C ends it with 0"

        self._service.callback(stop)
        _wait(lambda: process.poll() is not None or _is_alive(f"http://127.0.0.1:{self._port}/livez"))
        said = log.read_text(encoding="utf-8")
        if process.poll() is not None:
            raise ExampleError(f"it does not serve, but says:\n{said}")
        return self._shown("".join(line for line in said.splitlines(keepends=True) if '"route"' not in line))

    def _serve_here(self) -> None:
        """Serve the page's database from this process, for pages that take a running service for granted."""
        file = self.directory / "data" / "factledger" / "ledger.db"
        ledgers = open_ledgers(f"sqlite:///{file}")
        assert ledgers.sealer is not None
        ledgers.sealer.make_key(salt)  # as `factledger serve` does
        app = create_app(ledgers, Settings(log_level="error"))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run)
        thread.start()
        _wait(lambda: server.started)
        self._port = server.servers[0].sockets[0].getsockname()[1]

        def stop() -> None:
            server.should_exit = True
            thread.join(SECONDS)

        self._service.callback(stop)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_alive(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not until():
        if time.monotonic() > deadline:
            raise ExampleError(f"nothing serves after {SECONDS} s")
        time.sleep(0.05)


# --- pages


class Page:
    """A page, and what became of its examples so far."""

    def __init__(self, path: Path, place: Place, watch: Callable[[str, str], None] = lambda _source, _printed: None):
        """Take a page and where its commands run; `watch` is told of each command and what it printed."""
        self._place, self._watch = place, watch
        self._printed: tuple[int, str] | None = None  # where the last command's block ends, and what it printed
        self._evaluators = {
            "bash": self._bash,
            "python": self._python,
            "json": self._json,
            "text": self._text,
        }
        self._document = Document.parse(str(path), self._blocks)

    def check(self) -> None:
        """Run every example in order.

        Raises:
            SybilFailure: naming page and line, at the first that does not do what the page says.
        """
        example = None
        for example in self._document.examples():
            example.evaluate()
        if example is not None and (unexpected := self._forget()):
            raise SybilFailure(example, unexpected)

    def _blocks(self, document: Document) -> Iterator[Region]:
        for region in FencedCodeBlockLexer(r"\w*")(document):
            language = region.lexemes["language"]
            region.parsed, region.evaluator = region.lexemes["source"], self._evaluators.get(language, self._unknown)
            yield region

    def _unknown(self, example: Example) -> str:
        known = ", ".join(self._evaluators)
        return f"a block is one of {known}; this is {example.region.lexemes['language'] or 'without a language'}"

    def _bash(self, example: Example) -> str | None:
        return self._command(example, self._place.run)

    def _python(self, example: Example) -> str | None:
        return self._command(example, lambda source: self._place.run_python(source, example.namespace))

    def _command(self, example: Example, run: Callable[[str], str]) -> str | None:
        if unexpected := self._forget():
            return unexpected
        if _NOT_RUN.search(example.document.text[: example.region.start]):
            return None
        try:
            printed = run(str(example.parsed))
        except ExampleError as failure:
            return str(failure)
        self._watch(str(example.parsed), printed)
        self._printed = example.region.end, printed
        return None

    def _forget(self) -> str | None:
        """Return what is wrong with the last command if nothing shows what it prints."""
        printed, self._printed = self._printed, None
        if printed is not None and _PROBLEM in printed[1]:
            return f"the command above was refused, and nothing says so:\n{printed[1]}"
        return None

    def _output_of_command(self, example: Example) -> str | None:
        """Return what the block directly above printed, or None if this block is no output."""
        if self._printed is None or example.document.text[self._printed[0] : example.region.start].strip():
            return None
        printed = self._printed[1]
        self._printed = None
        return printed

    def _text(self, example: Example) -> str | None:
        printed = self._output_of_command(example)
        if printed is None or matches_text(str(example.parsed), printed):
            return None
        return f"this is not what the command prints, which is:\n{printed}"

    def _json(self, example: Example) -> str | None:
        printed = self._output_of_command(example)
        try:
            if printed is None:
                return _check_stated(str(example.parsed))
            alike = matches_json(str(example.parsed), printed)
        except ValueError as problem:
            return f"it is not JSON ({problem}); the command prints:\n{printed}"
        except LedgerError as refusal:
            return f"the ledger would refuse this event: {refusal.errors or refusal.detail}"
        return None if alike else f"this is not what the command prints, which is:\n{printed}"


def _check_stated(text: str) -> str | None:
    """Return what is wrong with JSON that no command printed: events must be such as the ledger takes."""
    for value in _texts(_completed(text)):
        if isinstance(value, dict) and "specversion" in value and "position" not in value:
            if ELISION in text:
                return "an event is shown complete, so that it can be posted"
            read_event(parse_json(json.dumps(value).encode()))
    return None
