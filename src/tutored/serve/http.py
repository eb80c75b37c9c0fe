"""HTTP as uvicorn speaks it, with limits of time and number, and errors as JSON, before a request is the page's."""

from __future__ import annotations

import json
from typing import Any

import h11
import uvicorn
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 64
"""At once; requests on more are told to come again."""
MOST_CONNECTIONS = 4 * CONNECTIONS
"""More are closed without a word."""
HEADERS = 10.0
"""Seconds within which a connection must bring a request."""
REQUEST = 180.0
"""Seconds after which a request has ended, its answer read."""
GRACE = 3
"""Seconds that a request has to end when the server is stopped."""
BUSY = "too many ask at once; send the picture again in a moment"


def settings(app: Any) -> uvicorn.Config:
    """How uvicorn serves the page."""
    return uvicorn.Config(
        app,
        http=Limited,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )


class Limited(H11Protocol):
    """One connection."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._whole_app, self.app = self.app, self._answer

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        app: Any = self._whole_app
        if len(self.connections) > CONNECTIONS:
            app = JSONResponse({"error": BUSY}, 503, {"Retry-After": "5", "Connection": "close"})
        await app(scope, receive, send)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._look(None, self.loop.time())

    def _look(self, seen: Any, since: float) -> None:
        """Once a second: end the connection if what it does has lasted too long.

        Args:
            seen: the request of the last look, or None.
            since: when it was seen first.
        """
        if self.transport.is_closing():
            return
        now = self.loop.time()
        if self.cycle is not seen:
            seen, since = self.cycle, now
        is_idle = self.cycle is None or self.cycle.response_complete
        if now - since < (HEADERS if is_idle else REQUEST):
            self.loop.call_later(1, self._look, seen, since)
        else:
            self.transport.close()
            self.loop.call_later(HEADERS, self.transport.abort)  # nobody reads what is still to be sent

    def send_400_response(self, msg: str) -> None:
        content = json.dumps({"error": msg}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
