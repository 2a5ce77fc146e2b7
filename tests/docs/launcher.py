"""Runs `factledger` commands for the examples, each in a process of its own that need not load the program first.

One process loads it and waits at a socket; for each command it forks. What a page runs as `factledger` is a small
program that hands its arguments, environment, directory and standard streams over, and ends as the command does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MESSAGE_BYTES = 1024 * 1024

_CLIENT = """\
#!{python} -IS
import array, json, os, socket, sys
with socket.socket(socket.AF_UNIX) as there:
    there.connect({address!r})
    streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
    there.sendmsg([json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()], streams)
    there.shutdown(socket.SHUT_WR)
    code = there.recv(16)
sys.exit(int(code or 70))
"""


def write_client(path: Path, address: Path) -> None:
    """Write the program that runs `factledger` through the process that waits at an address."""
    path.write_text(_CLIENT.format(python=sys.executable, address=str(address)), encoding="utf-8")
    path.chmod(0o755)


@contextmanager
def waiting(address: Path) -> Iterator[None]:
    """Keep a process waiting at an address for commands to run."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "service"), "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen([sys.executable, __file__, str(address)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not address.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


def _wait(address: str) -> None:
    import factledger.demo.database
    import factledger.demo.story
    import factledger.http.serving  # noqa: F401 - loaded here, once
    from factledger.cli import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the children ended
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address + ".new")
        listener.listen()
        Path(address + ".new").rename(address)
        while True:
            there, _ = listener.accept()
            if os.fork() == 0:
                break
            there.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    received, streams, _, _ = socket.recv_fds(there, MESSAGE_BYTES, 3)
    while more := there.recv(MESSAGE_BYTES):
        received += more
    arguments, environment, directory = json.loads(received)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Fresh ones: those that are there were made for the streams that this process was started with.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    there.sendall(str(code).encode())
    os._exit(code)


if __name__ == "__main__":
    _wait(sys.argv[1])
