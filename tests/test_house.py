"""The house: what lies where, who may import what, and what no file may contain."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "service" / "factledger"
LOCKS = ("requirements.lock", "requirements-dev.lock")

# architecture.md, "The house", and the files that tools look for by name
HOUSE = {
    "pyproject.toml",
    "README.md",
    "docker-compose.yml",
    "run.py",
    *LOCKS,
    "migrations",
    "service",
    "tests",
    "benchmarks",
    "docs",
    ".ci",
    ".dockerignore",
    ".gitignore",
    "Dockerfile",
}
NOT_YET = {"benchmarks", "docs"}  # allowed, not demanded

# A library that few may import, and who
ONLY = {
    "alembic": {"store", "wiring"},
    "psycopg": {"store", "wiring"},
    "sqlalchemy": {"store", "wiring"},
    "fastapi": {"http", "console"},
    "starlette": {"http", "console"},
}
CORE_MAY_IMPORT = {"factledger", "orjson", "rfc8785"}  # beside the standard library


def house_files() -> list[Path]:
    """Every file that is in the repository or would be added to it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert files
    return [path for path in files if path.is_file()]


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield node.module or ""


def modules() -> list[tuple[str, Path]]:
    """Every module of the package with the name of the child of `factledger` that it belongs to."""
    found = [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in PACKAGE.rglob("*.py")]
    assert found
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_locks_are_hashed_and_name_no_host(name: str) -> None:
    lock = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"://|index-url|find-links|\bfile:| @ ", lock)
    requirements = re.findall(r"^[a-z0-9].*?(?=^[a-z0-9]|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert len(requirements) > 20
    assert [entry.split()[0] for entry in requirements if "--hash=sha256:" not in entry] == []


def test_the_runtime_lock_is_part_of_the_development_lock() -> None:
    runtime, dev = (set(re.findall(r"^[a-z0-9].*==\S+", (ROOT / n).read_text(), re.MULTILINE)) for n in LOCKS)
    assert runtime - dev == set()


def test_no_file_knows_where_the_checkout_lies() -> None:
    root = re.compile(re.escape(os.fsencode(ROOT)) + rb"(?![\w.-])")
    assert [str(path.relative_to(ROOT)) for path in house_files() if root.search(path.read_bytes())] == []


def test_the_top_level_is_the_house() -> None:
    present = {path.relative_to(ROOT).parts[0] for path in house_files()}
    assert present - HOUSE == set(), "the house has no such room; see architecture.md"
    assert HOUSE - NOT_YET - present == set()


def test_the_source_root_is_no_package() -> None:
    paths = [path.relative_to(ROOT).parts for path in house_files()]
    assert {parts[1] for parts in paths if parts[0] == "service"} == {"factledger"}


def test_libraries_are_imported_only_where_they_belong() -> None:
    strays = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for room, path in modules()
        for name in imports(path)
        if room not in ONLY.get(name.partition(".")[0], {room})
    ]
    assert strays == []


def test_the_core_imports_the_standard_library_and_the_canonical_writers_alone() -> None:
    allowed = CORE_MAY_IMPORT | set(sys.stdlib_module_names)
    strays = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for room, path in modules()
        for name in imports(path)
        if room == "core" and name.partition(".")[0] not in allowed
    ]
    assert strays == []


def test_the_client_knows_neither_the_server_nor_the_database() -> None:
    for room, path in modules():
        if room == "client":
            ours = {name for name in imports(path) if name.partition(".")[0] == "factledger"}
            known = ("factledger.core.", "factledger.client.")
            assert {name for name in ours if not f"{name}.".startswith(known)} == set()


def test_ci_runs_the_tests_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1] == "set -euo pipefail"
    assert re.fullmatch(r'cd "\$\(dirname .*\)/\.\."', lines[2])
    assert lines[3:] == ["exec python3 run.py test"]
    assert os.access(script, os.X_OK)


def test_run_py_needs_the_standard_library_alone() -> None:
    assert {name.partition(".")[0] for name in imports(ROOT / "run.py")} - set(sys.stdlib_module_names) == set()


def test_compose_keeps_its_data_watches_its_health_and_stays_on_loopback() -> None:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert set(compose["services"]) == {"factledger", "postgres"}
    for service in compose["services"].values():
        assert service["healthcheck"]["test"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        named = [volume.split(":", 1)[0] for volume in service["volumes"]]
        assert named
        assert set(named) <= set(compose["volumes"])
    assert compose["services"]["factledger"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    url = compose["services"]["factledger"]["environment"]["FACTLEDGER_DATABASE_URL"]
    assert url.startswith("postgresql+psycopg://")


def test_the_image_is_built_from_the_lock_and_runs_as_nobody_special() -> None:
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes -r requirements.lock" in image
    assert re.search(r"^USER (?!root)\w+$", image, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\\\n.*/livez", image, re.MULTILINE)
