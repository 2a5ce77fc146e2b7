"""Serving: the application on an address, until it is told to stop."""

from __future__ import annotations

import gc
import ipaddress
import signal
import socket
import sys
import threading
from collections.abc import Callable

import uvicorn

from factledger import wiring
from factledger.core.errors import Category, LedgerError
from factledger.http.app import create_app
from factledger.settings import Settings

SWITCH_SECONDS = 0.0005
GRACE_SECONDS = 20  # for answers that are under way when the service is told to stop


def serve(database_url: str, settings: Settings, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `announce` is told where, once connections are taken.

    Port 0 is any free one.

    Raises:
        LedgerError: `open-address`; `address-unavailable`; and those of `wiring.open_ledgers`.
    """
    address = _resolve(host, port)
    if not _is_loopback(address[1][0]) and not settings.open_on_any_address:
        raise LedgerError(
            Category.FORBIDDEN,
            "open-address",
            f"There are no API keys, so whoever reaches {host} could read and append everything. Listen on 127.0.0.1, "
            "or set FACTLEDGER_OPEN_ON_ANY_ADDRESS=true if something else keeps strangers out.",
        )
    wiring.configure_logging(settings)
    _tune()
    with _listen(address) as listener:
        ledgers = wiring.open_ledgers(database_url, settings=settings)
        if ledgers.sealer is not None:
            ledgers.sealer.make_key(wiring.salt)
        app = create_app(ledgers, settings)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        shown = f"[{host}]" if ":" in host else host
        announce(f"factledger listens on http://{shown}:{listener.getsockname()[1]}")
        announce("It is open: there are no API keys, so whoever reaches this address can read and append everything.")
        _run(server, listener)


def _tune() -> None:
    """Set the interpreter up for one thread that answers and one that writes, and for much that lives briefly."""
    # A thread that comes back from the database waits so long for one that computes: at most this, many times a commit.
    sys.setswitchinterval(SWITCH_SECONDS)
    # Events hold no cycles; by default each few hundred of them would make the collector look at all that is alive.
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Run until a signal says stop, and return: by itself the server would raise the signal once more."""
    if threading.current_thread() is not threading.main_thread():
        server.run(sockets=[listener])
        return
    stops = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(stop, server.handle_exit) for stop in stops]
    try:
        server.run(sockets=[listener])
    finally:
        for stop, handler in zip(stops, before, strict=True):
            signal.signal(stop, handler)


Address = tuple[socket.AddressFamily, tuple[str, int]]


def _resolve(host: str, port: int) -> Address:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as problem:
        raise _unavailable(problem) from None
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _listen(address: Address) -> socket.socket:
    family, where = address
    try:
        return socket.create_server(where, family=family, backlog=2048)
    except OSError as problem:
        raise _unavailable(problem) from None


def _unavailable(problem: OSError) -> LedgerError:
    return LedgerError(
        Category.UNAVAILABLE, "address-unavailable", f"It cannot listen on this address: {problem.strerror}."
    )
