"""The command line: the ledger for people at a terminal and for scripts."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import orjson
import typer
from typer.main import get_command

from factledger.cli import terminal
from factledger.cli.auditing import app
from factledger.core.errors import Category, LedgerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are one clear sentence on standard error.

    Exit codes: 0 ok, 1 unexpected, 2 invalid, 3 not found, 4 conflict, 5 forbidden, 6 unavailable, 7 corrupt,
    130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    json, debug = "--json" in options, "--debug" in options
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a value may hold what the terminal cannot show
    if not given:
        given, otherwise = ["--help"], terminal.INVALID
    else:
        otherwise = 0
    try:
        return get_command(app).main(given, prog_name="factledger", standalone_mode=False) or otherwise
    except LedgerError as refusal:
        if debug:
            traceback.print_exc()
        terminal.report(refusal, json=json)
        return terminal.EXIT_CODES[refusal.category]
    except typer.TyperException as misuse:
        terminal.report(_usage(misuse), json=json)
        return misuse.exit_code
    except OSError as failure:
        place = f"{failure.filename}: " if failure.filename else ""
        terminal.report(
            LedgerError(Category.UNAVAILABLE, "input-output", f"{place}{failure.strerror or failure}."), json=json
        )
        return terminal.UNAVAILABLE
    except (KeyboardInterrupt, typer.Abort):
        return terminal.INTERRUPTED
    except Exception as unexpected:  # noqa: BLE001 -- the last resort: a short message instead of a traceback
        if debug:
            traceback.print_exc()
        _report_unexpected(unexpected, json=json)
        return terminal.UNEXPECTED


def _usage(misuse: typer.TyperException) -> LedgerError:
    """Return a misuse of the command line as a refusal that says where help is."""
    context = getattr(misuse, "ctx", None)
    command = getattr(context, "command_path", "factledger")
    message = misuse.format_message().rstrip(".")
    return LedgerError(Category.INVALID, "invalid-usage", f"{message}; see {command} --help.")


def _report_unexpected(unexpected: Exception, *, json: bool) -> None:
    named = f"{type(unexpected).__name__}: {unexpected}".splitlines()[0]
    detail = f"Something unexpected went wrong ({named}). Run it again with --debug to see where."
    if json:
        body = {"title": "Unexpected", "detail": detail, "code": "unexpected", "errors": [], "exit_code": 1}
        sys.stderr.write(orjson.dumps(body).decode() + "\n")
    else:
        terminal.err().print(f"Error: {terminal.shown(detail)}")
