"""The commands of auditors, and of whoever answers to them."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer
from rich.text import Text

from factledger.cli import terminal
from factledger.cli.commands import app as app
from factledger.cli.options import Local, spread, unfit
from factledger.cli.reach import opened, sign


@app.command()
@spread
def signing_key(
    where: Local,
    rotate: Annotated[bool, typer.Option("--rotate", help="Sign with a new key from now on.")] = False,
    abandon: Annotated[
        bool,
        typer.Option("--abandon", help="With --rotate: no longer answer for what was signed; events of it are lost."),
    ] = False,
) -> None:
    """Show whose signature the checkpoints of a ledger bear, or change the key."""
    from factledger.wiring import salt  # here, since it loads the database's library

    if abandon and not rotate:
        raise unfit("--abandon", "is for --rotate only")
    with opened(where, create=False) as ledgers:
        sealer = ledgers.sealer
        assert sealer is not None
        if rotate:
            sealer.keeper.rotate(salt, abandon=abandon)
            sign(ledgers)
        described = ledgers.get(where.ledger).describe()
        shown = {name: described[name] for name in ("ledger", "verifier_key", "former_verifier_keys")}
        shown["signing_key"] = str(sealer.keeper.key_file.resolve()) if sealer.keeper.has_key else None
        shown["checkpoint"] = str(sealer.keeper.held_file(where.ledger).resolve())
    if where.json:
        terminal.write_json(orjson.dumps(shown))
        return
    terminal.say(Text(terminal.shown(shown["verifier_key"] or "No checkpoint has been signed.")), wrap=False)
    for key in shown["former_verifier_keys"]:
        terminal.say(Text(f"{terminal.shown(key)}  (former)"), wrap=False)
    terminal.say(f"  key         {terminal.shown(shown['signing_key'] or 'not here')}", wrap=False)
    terminal.say(f"  checkpoint  {terminal.shown(shown['checkpoint'])}", wrap=False)
