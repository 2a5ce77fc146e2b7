"""The commands of auditors, and of whoever answers to them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.text import Text

from factledger import receipts
from factledger.auditing import Erasures, Leaves, Report, claim
from factledger.cli import tables, terminal
from factledger.cli.commands import Entity, Predicate
from factledger.cli.commands import app as app
from factledger.cli.options import At, Local, Where, spread, unfit
from factledger.cli.reach import BehindServer, audited, opened, reach, served, sign
from factledger.core import encoding, events, merkle
from factledger.verifier import VerifierKey


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


@app.command()
@spread
def verify(
    where: Where,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="The log must contain this checkpoint."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="VKEY", help="Checkpoints must be signed with this key; else with the ledger's own."),
    ] = None,
    receipt: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="Check this receipt instead, without any ledger."
        ),
    ] = None,
) -> int:
    """Check everything that is stored against the log, and the log against what was signed."""
    if receipt is not None:
        if checkpoint or where.server is not None or where.database is not None:
            raise unfit("--receipt", "needs no ledger: it goes with --key alone")
        return _verify_receipt(receipt, [_key(text) for text in key or ()], json=where.json)
    notes = {str(path): path.read_bytes() for path in checkpoint or ()}
    trusted = [_key(text) for text in key or ()]
    with terminal.progress("verifying", "events") as update:

        def progress(done: int, size: int) -> None:
            update(done, size, done)

        if where.server is not None:
            with served(where) as ledger:
                report = _verify_served(ledger, where.ledger, notes, trusted, progress)
        else:
            from factledger.verifying import verify as verify_stored  # here, since it loads the database's library

            with audited(where) as (database, keeper):
                report = verify_stored(database, where.ledger, keeper, notes=notes, trusted=trusted, progress=progress)
    if where.json:
        terminal.write_json(orjson.dumps(report.json()))
    else:
        _show(report, everything=where.server is None)
    return terminal.CORRUPT if report.count else 0


@app.command()
@spread
def receipt(entity: Entity, predicate: Predicate, where: Where, at: At) -> None:
    """Print a belief as JSON, with all events that it rests on and proofs, to be verified without the ledger."""
    with reach(where) as ledger:
        terminal.write_json(ledger.receipt(entity, predicate, at))


def _verify_receipt(file: Path, trusted: Sequence[VerifierKey], *, json: bool) -> int:
    proven = receipts.verify(file.read_bytes(), trusted)
    if json:
        terminal.write_json(orjson.dumps(proven.json()))
        return 0
    belief, checkpoint = proven.belief, proven.checkpoint
    terminal.say(f"Verified a receipt of {proven.ledger}: {belief['entity']}, {belief['predicate']}.")
    at = belief["coordinates"]
    terminal.say(f"  at         {at['valid_at']}, as of size {at['at_size']}")
    terminal.say(f"  believed   {terminal.shown(belief['sentence'])}")
    terminal.say(f"  rests on   {tables.count(proven.count, 'event')}, each proven to be in the log")
    terminal.say(f"  signed     {tables.count(checkpoint.size, 'event')}, by {proven.key}", wrap=False)
    trust = "" if trusted else " It names its key itself: give the one that you trust with --key."
    terminal.say(Text(f"The belief is what these events say.{trust}", style="green" if trusted else "yellow"))
    return 0


def _key(text: str) -> VerifierKey:
    try:
        return VerifierKey.parse(text)
    except ValueError as problem:
        raise unfit("--key", f"is no verifier key: {problem}") from None


def _show(report: Report, *, everything: bool) -> None:
    terminal.say(f"Verified {report.ledger}: {tables.count(report.size, 'event')}.")
    terminal.say(f"  root  {base64.b64encode(report.root).decode()}")
    for label, size in report.checkpoints:
        terminal.say(f"  It contains {terminal.shown(label)}, of {tables.count(size, 'event')}.")
    if not report.count:
        what = "Everything that is stored is what the log says." if everything else "The log is what was signed."
        unsigned = "" if report.checkpoints else " But nothing was signed: that it is the whole log, nobody can say."
        terminal.say(Text(what + unsigned, style="green" if not unsigned else "yellow"))
        return
    for found in report.findings:
        place = found.where if found.position is None else f"{found.where}, position {found.position}"
        terminal.say(Text(f"  {terminal.shown(place)}: {terminal.shown(found.detail)}", style="red"))
    first = "" if report.first is None else f" The first bad position is {report.first}."
    terminal.say(Text(f"{tables.count(report.count, 'finding')}.{first}", style="bold red"))


def _verify_served(
    ledger: BehindServer, name: str, notes: Mapping[str, bytes], trusted: Sequence[VerifierKey], progress: Any
) -> Report:
    """Hold the log that a server shows against what it and others have signed; its beliefs are not looked at."""
    report = Report(name)
    published = ledger.checkpoint()  # before the size, which is then not smaller
    described = ledger.describe()
    size, claims = described["size"], dict(notes)
    if published is not None:
        claims["the server's checkpoint"] = published
    stated = [described["verifier_key"], *described["former_verifier_keys"]]
    keys = trusted or [VerifierKey.parse(text) for text in stated if text is not None]
    found = [claim(report, label, note, keys) for label, note in claims.items()]
    leaves, erasures = Leaves(report, [one for one in found if one is not None]), Erasures()
    for event in ledger.events(size, type=events.ERASURE):
        erasures.add(event["position"], event["source"], event["data"])
    following, done = ledger.events(size), 0
    while chunk := list(islice(following, 1_000)):
        leaves.extend(list(_leaves_of(report, erasures, chunk, done)))
        done += len(chunk)
        progress(done, size)
    leaves.finish()
    if (report.size, base64.b64encode(report.root).decode()) != (size, described["root"]):
        report.add(None, "ledgers", "size or root are not what the events say")
    return report


def _leaves_of(report: Report, erasures: Erasures, shown: Sequence[Mapping[str, Any]], begin: int) -> Iterator[bytes]:
    """Yield the leaf hashes of events as read back, each checked against itself."""
    for position, event in enumerate(shown, begin):
        envelope = {name: event[name] for name in event if name not in ("data", "datasalt", "inforce")}
        yield merkle.leaf_hash(encoding.canonical_bytes(envelope))
        try:
            if (event["position"], event["ledger"]) != (position, report.ledger):
                report.add(position, "events", "is another ledger's, or at another position")
            if event.get("data") is None:
                if not erasures.cover(position, event["source"], event["id"]):
                    report.add(position, "events", "has no content, and no erasure says so")
                continue
            salt = base64.b64decode(event["datasalt"], validate=True)
            if encoding.data_sha256(salt, encoding.canonical_bytes(event["data"])) != event["datasha256"]:
                report.add(position, "events", "the content is not what the envelope commits to")
        except (ValueError, TypeError, LookupError) as problem:
            report.trouble(position, "events", problem)
