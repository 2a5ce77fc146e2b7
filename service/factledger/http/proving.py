"""What auditors use to check a ledger without trusting the service: checkpoint, proofs and tiles."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from factledger.core.errors import LedgerError
from factledger.http import describing, wire
from factledger.http.questions import ConsistencyQuery, InclusionQuery, LedgerName
from factledger.http.service import serving

IMMUTABLE = "public, max-age=31536000, immutable"

router = APIRouter(
    prefix="/v1/ledgers/{ledger}",
    default_response_class=Response,
    tags=["Integrity"],
    responses=describing.refusals(404, 422, 503),
)


@router.get(
    "/checkpoint",
    summary="The last checkpoint",
    responses={200: describing.plain("A signed note.", "text/plain; charset=utf-8")},
)
def checkpoint(request: Request, ledger: LedgerName) -> Response:
    """Return the last checkpoint (C2SP tlog-checkpoint): size and root of the log, signed with Ed25519.

    It is at most about a second older than the last append.
    """
    note = serving(request).open(ledger).proofs.checkpoint()
    return Response(note, headers={"Cache-Control": "no-store"}, media_type="text/plain; charset=utf-8")


@router.get(
    "/proofs/inclusion",
    summary="Proof that an event is in the log",
    responses={200: describing.answer("The proof.", wire.InclusionAnswer, headers="Cache-Control")},
)
def inclusion(request: Request, ledger: LedgerName, query: Annotated[InclusionQuery, Query()]) -> Response:
    """Return the proof that the event at a position is in the log of a size (RFC 6962)."""
    opened = serving(request).open(ledger)
    return _proof(lambda: opened.proofs.inclusion(query.position, query.size), pinned=query.size is not None)


@router.get(
    "/proofs/consistency",
    summary="Proof that the log only grew",
    responses={200: describing.answer("The proof.", wire.ConsistencyAnswer, headers="Cache-Control")},
)
def consistency(request: Request, ledger: LedgerName, query: Annotated[ConsistencyQuery, Query()]) -> Response:
    """Return the proof that the log of one size is the beginning of that of another (RFC 6962)."""
    opened = serving(request).open(ledger)
    return _proof(lambda: opened.proofs.consistency(query.from_, query.to), pinned=query.to is not None)


def _proof(prove: Any, *, pinned: bool) -> Response:
    try:
        shown = prove()
    except LedgerError as refusal:
        raise (refusal.at("/query") if refusal.errors else refusal) from None
    headers = {"Cache-Control": IMMUTABLE if pinned else "no-cache"}
    return Response(orjson.dumps(shown), headers=headers, media_type="application/json")


@router.get(
    "/tile/{tile:path}",
    summary="A tile of the Merkle tree",
    responses={200: describing.plain("Hashes, or entries.", "application/octet-stream", binary=True)},
)
def tile(
    request: Request,
    ledger: LedgerName,
    tile: Annotated[
        str,
        Path(
            description="LEVEL/INDEX or entries/INDEX, with .p/WIDTH if partial (C2SP tlog-tiles).",
            examples=["0/x001/x234/067", "1/000.p/17", "entries/000.p/3"],
        ),
    ],
) -> Response:
    """Return a tile (C2SP tlog-tiles): up to 256 hashes of one level, or what up to 256 leaves are hashed from."""
    found = serving(request).open(ledger).proofs.tile(tile)
    return Response(found, headers={"Cache-Control": IMMUTABLE}, media_type="application/octet-stream")
