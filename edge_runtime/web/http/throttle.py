"""Limits how often one client may try something."""

import ipaddress
import time
from collections import OrderedDict, deque

from starlette.requests import HTTPConnection

MOST_ADDRESSES = 10_000
"""Addresses remembered at once; the one seen least recently is forgotten first."""


class Throttle:
    """Counts attempts per client address over the last `seconds`."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._attempts: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Count an attempt and return 0; if there were too many, return the seconds until the next is allowed."""
        now = time.monotonic()
        recent = self._attempts.setdefault(address, deque(maxlen=self._most))
        self._attempts.move_to_end(address)
        if len(self._attempts) > MOST_ADDRESSES:
            self._attempts.popitem(last=False)
        if len(recent) == self._most and now - recent[0] < self._seconds:
            return self._seconds - (now - recent[0])
        recent.append(now)
        return 0.0

    def forget(self, address: str) -> None:
        """Forget the attempts of an address."""
        self._attempts.pop(address, None)


def client_address(request: HTTPConnection) -> str:
    """Return the client's address; for IPv6 its network of 64 bits, within which a client can pick any address."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((int(address), 64), strict=False)) if address.version == 6 else host
