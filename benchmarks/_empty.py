"""The least that FastAPI can do with a POST: read the body, answer with a constant. What a single append is held to."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response

app = FastAPI()


@app.post("/v1/ledgers/{ledger}/events", status_code=201)
async def append(ledger: str, request: Request) -> Response:  # noqa: ARG001 - as the service's own route has it
    """Read the body and answer."""
    await request.body()
    return Response(b'{"results":[],"recorded":1,"duplicate":0,"size":1}', 201, media_type="application/json")


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(f"listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, http="httptools", ws="none", log_config=None, access_log=False)
        uvicorn.Server(config).run(sockets=[listener])
