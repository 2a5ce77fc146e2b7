#!/usr/bin/env python3
"""Run, test and look after factledger from a bare checkout, with the standard library alone.

A fresh Debian has Python and at most pip: no ensurepip, no uv, and a pip that refuses to install into the
system. So this makes `.venv`, installs the hashed lock into it, and hands over.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("factledger needs Python 3.11 or newer; this is Python %d.%d." % sys.version_info[:2])  # noqa: UP031

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import tomllib
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.json"
RUNTIME_LOCK = "requirements.lock"
DEV_LOCK = "requirements-dev.lock"
OLDEST_PIP = (22, 3)  # the first with --python

NO_INSTALLER = """\
Neither uv nor pip was found, and one of them is needed to install the dependencies into .venv.
  Debian, Ubuntu:  apt-get install python3-pip
  Fedora:          dnf install python3-pip
  any other:       put `uv` on PATH
Then run the same command again."""

LAUNCHER = """\
#!/bin/sh
'''exec' "$(dirname -- "$(readlink -f -- "$0")")/python" "$0" "$@"
' '''
import sys

from factledger.cli import main

sys.exit(main())
"""


# --- the environment ---


def say(text: str) -> None:
    """Print a line of our own, apart from what the tools print."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"\033[1;36m▸ {text}\033[0m" if colour else f"▸ {text}", flush=True)


@contextlib.contextmanager
def sole_installer() -> Iterator[None]:
    """Let one process at a time build `.venv`; the lock is the checkout's directory, so no file is left."""
    import fcntl  # here, so that the message below reaches those who have none

    handle = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def digest(name: str) -> str:
    """The SHA-256 of a lock file."""
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()


def installed() -> dict[str, str]:
    """What `.venv` was built from; empty when it has to be built."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    usable = isinstance(stamp, dict) and stamp.get("python") == sys.version and PYTHON.exists()
    return {str(key): str(value) for key, value in stamp.items()} if usable else {}


def find_pip() -> list[str] | None:
    """The command of a pip that can install into another environment, or None."""
    base = getattr(sys, "_base_executable", None)
    candidates = [sys.executable, base, shutil.which("python3"), shutil.which("python")]
    for candidate in dict.fromkeys(c for c in candidates if c):
        shown = subprocess.run([candidate, "-m", "pip", "--version"], capture_output=True, text=True, check=False)
        found = re.match(r"pip (\d+)\.(\d+)", shown.stdout)
        if shown.returncode == 0 and found and (int(found[1]), int(found[2])) >= OLDEST_PIP:
            return [candidate, "-m", "pip"]
    return None


def install_command(lock: str) -> list[str]:
    """The command that installs a hashed lock into `.venv`."""
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", str(PYTHON), "--require-hashes", "-r", lock]
    pip = find_pip()
    if pip is None:
        sys.exit(NO_INSTALLER)
    quiet = ["-qq", "--no-input", "--disable-pip-version-check", "--no-warn-script-location"]
    return [*pip, "--python", str(PYTHON), "install", *quiet, "--require-hashes", "-r", lock]


def link_project() -> None:
    """Make `import factledger` and the command `factledger` work in `.venv`, without a build backend.

    The path is relative, so a checkout that is moved goes on working.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    site = VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / f"{name}.pth").write_text(os.path.relpath(ROOT / "service", site) + "\n", encoding="utf-8")
    for old in site.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {project['description']}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "INSTALLER").write_text("run.py\n", encoding="utf-8")
    entries = "".join(f"{key} = {value}\n" for key, value in project["scripts"].items())
    (info / "entry_points.txt").write_text("[console_scripts]\n" + entries, encoding="utf-8")
    launcher = VENV / "bin" / "factledger"
    launcher.write_text(LAUNCHER, encoding="utf-8")
    launcher.chmod(0o755)


def prepare(*, dev: bool) -> None:
    """Leave `.venv` holding exactly the versions of the lock; does nothing when it already does."""
    if os.name != "posix":
        sys.exit("run.py works on Linux and macOS; on Windows use WSL or docker compose.")
    with sole_installer():
        stamp = installed()
        dev = dev or DEV_LOCK in stamp
        locks = [RUNTIME_LOCK, DEV_LOCK] if dev else [RUNTIME_LOCK]
        version = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
        wanted = {"python": sys.version, **{lock: digest(lock) for lock in locks}}
        if any(stamp.get(key) != value for key, value in wanted.items()):
            started = time.monotonic()
            command = install_command(locks[-1])
            tool = "uv" if Path(command[0]).name == "uv" else "pip"
            say(f"installing {locks[-1]} into .venv with {tool} (the first time takes a minute or two)")
            # Not cleared when only a lock changed: somebody may be running from it.
            venv.EnvBuilder(with_pip=False, symlinks=True, clear=not stamp).create(VENV)
            STAMP.unlink(missing_ok=True)
            if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
                sys.exit(f"Installing {locks[-1]} failed; see above. Nothing outside .venv was touched.")
            link_project()
            say(f".venv is ready after {time.monotonic() - started:.0f} s")
        elif stamp.get("pyproject.toml") != version:
            link_project()
        else:
            return
        STAMP.write_text(json.dumps({**wanted, "pyproject.toml": version}, indent=2) + "\n", encoding="utf-8")


def hand_over(*arguments: str) -> int:
    """Become `factledger ARGUMENTS`, so that signals and exit code are its own."""
    prepare(dev=False)
    os.execv(PYTHON, [str(PYTHON), str(VENV / "bin" / "factledger"), *arguments])


# --- the commands ---


def run_steps(steps: Sequence[tuple[str, Sequence[str]]]) -> int:
    """Run the steps in order and return the exit code of the first that fails, else 0."""
    for number, (title, command) in enumerate(steps, start=1):
        say(f"[{number}/{len(steps)}] {title}")
        started = time.monotonic()
        code = subprocess.run([str(PYTHON), *command], cwd=ROOT, check=False).returncode
        if code != 0:
            say(f"FAILED: {title} (exit code {code}, after {time.monotonic() - started:.1f} s)")
            return code if code > 0 else 128 - code
    return 0


# It has no `python -m` of its own, and a console script would carry the checkout's absolute path.
IMPORT_LINTER = "from importlinter.cli import lint_imports_command as run; run(['--no-cache', '--no-logo'])"

LINT: list[tuple[str, list[str]]] = [
    ("formatting (ruff format --check)", ["-m", "ruff", "format", "--check", "."]),
    ("lint (ruff check)", ["-m", "ruff", "check", "."]),
    ("import rules (import-linter)", ["-c", IMPORT_LINTER]),
    ("types (mypy --strict)", ["-m", "mypy"]),
]


def test(arguments: Sequence[str]) -> int:
    """Run every check: format, lint, import rules, types, then the tests."""
    extra = [argument for argument in arguments if argument != "--slow"]
    if "--slow" not in arguments and not any(re.match(r"-m($|[^-])", argument) for argument in extra):
        extra = ["-m", "not slow", *extra]
    if not any(re.match(r"-n($|\d|auto|logical)|--numprocesses", argument) for argument in extra):
        extra = ["-n", "2", *extra]
    prepare(dev=True)
    return run_steps([*LINT, ("tests (pytest)", ["-m", "pytest", *extra])])


def lint(arguments: Sequence[str]) -> int:
    """Run the checks that need no test run."""
    no_arguments("lint", arguments)
    prepare(dev=True)
    return run_steps(LINT)


def format_code(arguments: Sequence[str]) -> int:
    """Format the code and fix what ruff can fix safely."""
    no_arguments("format", arguments)
    prepare(dev=True)
    return run_steps(
        [
            ("safe fixes (ruff check --fix)", ["-m", "ruff", "check", "--fix-only", "."]),
            ("formatting (ruff format)", ["-m", "ruff", "format", "."]),
        ]
    )


def lock(arguments: Sequence[str]) -> int:
    """Write both lock files anew from pyproject.toml; options, as `--upgrade`, go to `uv pip compile`."""
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("Making the locks needs `uv` on PATH (installing from them does not).")
    common = [
        "--universal",
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--no-emit-index-url",
        "--quiet",
    ]
    common += ["--no-emit-find-links", "--custom-compile-command", "python3 run.py lock", *arguments]
    compile_to = [uv, "pip", "compile", "pyproject.toml", *common, "--output-file"]
    for target in ([RUNTIME_LOCK], [DEV_LOCK, "--group", "dev", "--constraints", RUNTIME_LOCK]):
        say(f"resolving {target[0]}")
        code = subprocess.run([*compile_to, *target], cwd=ROOT, check=False).returncode
        if code != 0:
            return code
    return 0


def bench(arguments: Sequence[str]) -> int:
    """Run one benchmark by name, or list them."""
    benchmarks = {path.stem: path for path in sorted((ROOT / "benchmarks").glob("[!_]*.py"))}
    if not arguments or arguments[0] not in benchmarks:
        print("python3 run.py bench NAME [arguments]; the names: " + (", ".join(benchmarks) or "none yet"))
        return 2 if arguments else 0
    prepare(dev=True)
    name, *rest = arguments
    return run_steps([(f"benchmark {name}", [str(benchmarks[name]), *rest])])


def no_arguments(command: str, arguments: Sequence[str]) -> None:
    """Refuse arguments where none are understood, rather than ignore them."""
    if arguments:
        sys.exit(f"run.py {command} takes no arguments; got {' '.join(arguments)}")


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    commands: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
        "demo": (
            lambda rest: hand_over("demo", *rest),
            "load the five seed articles and show what to believe",
        ),
        "serve": (lambda rest: hand_over("serve", *rest), "run the service on 127.0.0.1:8000"),
        "test": (
            test,
            "format, lint, import rules, types, tests; --slow for all tests; the rest goes to pytest",
        ),
        "lint": (lint, "the same without the tests"),
        "format": (format_code, "format the code"),
        "lock": (lock, "write both lock files anew (needs uv; --upgrade for newer versions)"),
        "bench": (bench, "run a benchmark by name"),
    }
    if argv and argv[0] in commands:
        run, _ = commands[argv[0]]
        return run(argv[1:])
    asked = bool(argv) and argv[0] in ("-h", "--help", "help")
    lines = ["python3 run.py COMMAND [arguments]; makes .venv on first use", ""]
    lines += [f"  {name:<8}{about}" for name, (_, about) in commands.items()]
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
