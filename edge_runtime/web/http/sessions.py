"""Browser sessions: a signed cookie instead of the token."""

import secrets
import time

from itsdangerous import BadData, URLSafeTimedSerializer

COOKIE = "deepfake_edge_session"
SESSION_S = 12 * 3600
TICKET_S = 600


class Sessions:
    """Sessions that end after SESSION_S or at sign-out.

    `token` signs them, so services with the same token share their sessions. A sign-out is known only to the service
    that received it, until it restarts.
    """

    def __init__(self, token: str | None) -> None:
        self._signer = URLSafeTimedSerializer(token or secrets.token_bytes(32), salt="deepfake-edge session")
        self._ended: dict[str, float] = {}
        self._tickets: dict[str, float] = {}

    def start(self) -> str:
        """Return the cookie value of a new session."""
        return self._signer.dumps(secrets.token_urlsafe(16))

    def is_valid(self, cookie: str) -> bool:
        """Return whether `cookie` belongs to a session that has not ended."""
        try:
            return self._signer.loads(cookie, max_age=SESSION_S) not in self._ended
        except BadData:
            return False

    def end(self, cookie: str) -> None:
        """End a session. Its cookie stays invalid, whoever holds a copy."""
        if self.is_valid(cookie):
            now = time.monotonic()
            self._ended = {session: ended for session, ended in self._ended.items() if now - ended < SESSION_S}
            self._ended[self._signer.loads(cookie)] = now

    def issue_ticket(self) -> str:
        """Return a ticket that starts a session once, within TICKET_S."""
        ticket = secrets.token_urlsafe(16)
        self._tickets[ticket] = time.monotonic()
        return ticket

    def redeem_ticket(self, ticket: str) -> bool:
        """Use up a ticket and return whether it was still valid."""
        issued = self._tickets.pop(ticket, None)
        return issued is not None and time.monotonic() - issued < TICKET_S
