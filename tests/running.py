"""Commands, run in this process, and events for them."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from factledger.cli import main

Event = dict[str, Any]


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON text on standard output."""
        return json.loads(self.out)

    @property
    def problems(self) -> list[Any]:
        """The problem objects on standard error."""
        return [json.loads(line) for line in self.err.splitlines()]


class Command:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: object, stdin: bytes | None = b"") -> Ran:
        opened = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
        self._monkeypatch.setattr(sys, "stdin", opened)
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = self._capsys.readouterr()
        return Ran(code, said.out, said.err)


def assertion(number: int, **data: Any) -> Event:
    return {
        "specversion": "1.0",
        "type": "factledger.assertion.v1",
        "source": "extractor:test@1",
        "id": f"a{number}",
        "data": {
            "subject": "person:a",
            "predicate": "location",
            "value": {"entity": f"place:{number}"},
            "provenance": {"outlet": f"outlet:{number}"},
            **data,
        },
    }


def lines(*events: Event | str) -> bytes:
    return b"".join((event if isinstance(event, str) else json.dumps(event)).encode() + b"\n" for event in events)


def written(path: Path, body: bytes) -> Path:
    path.write_bytes(body)
    return path
