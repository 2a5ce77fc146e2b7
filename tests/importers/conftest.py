"""Importers run as programs, against a service on both stores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from docs.importers import importing
from tests.client.conftest import remote, url

__all__ = ["remote", "url"]

SAMPLES = Path(importing.__file__).parent / "samples"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run an importer on files; return its exit code, and what it printed on both streams."""

    def run_importer(module: ModuleType, *files: Path, previous: Path | None = None) -> tuple[int, str, str]:
        arguments = [*map(str, files), "--server", url, *(["--previous", str(previous)] if previous else [])]
        code = importing.main(module.importer, module.SOURCE, str(module.__doc__), arguments)
        return code, *capsys.readouterr()

    return run_importer


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of lines, each a JSON object or a text as it is."""

    def write(name: str, *lines: dict[str, Any] | str) -> Path:
        file = tmp_path / name
        file.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines), "utf-8")
        return file

    return write
