"""Addresses of network cameras, with passwords kept out of what is shown."""

import urllib.parse
from dataclasses import dataclass

from edge_runtime.errors import SourceError

ENCODE = "in a user name or password write / as %2F, ? as %3F, # as %23, [ as %5B, ] as %5D and @ as %40"


@dataclass(frozen=True)
class Address:
    """A camera's address in its parts: as shown and as requested (both without the password), and as given."""

    name: str
    url: str
    scheme: str
    host: str
    port: int | None
    user: str | None
    password: str | None
    given: str

    def has_origin_of(self, url: str) -> bool:
        """Return whether `url` may be sent the password: it has the same scheme, host and port, or is now encrypted."""
        parts, mine = urllib.parse.urlsplit(url), urllib.parse.urlsplit(self.url)
        encrypted = parts.scheme == "https" and mine.scheme == "http" and parts.port in (None, 443)
        same_host = parts.hostname == mine.hostname
        same_origin = (parts.scheme, parts.netloc) == (mine.scheme, mine.netloc)
        return same_origin or (same_host and encrypted and mine.port in (None, 80))


def is_bare_login(text: str) -> bool:
    """Return whether `text` looks like an address whose :// is missing, with a password: NAME:PASSWORD@HOST."""
    return "://" not in text and ":" in text.rpartition("@")[0]


def public_name(address: str) -> str:
    """Return an address without what is before its last @; names of files that don't look like one stay as they are."""
    scheme, separator, rest = address.partition("://")
    if separator:
        return scheme + separator + rest.rpartition("@")[2]
    return address.rpartition("@")[2] if is_bare_login(address) else address


def parse_address(text: str) -> Address:
    """Return the parts of a camera's address.

    Raises:
        SourceError: it is not an address, or a character in its password must be encoded.
    """
    name = public_name(text)
    try:
        text.encode()
        parts = urllib.parse.urlsplit(text)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
        valid = bool(host) and port != 0
    except ValueError:
        valid = False
    if not valid:
        hint = ENCODE if "@" in text else "give http://HOST:PORT/PATH or rtsp://HOST:PORT/PATH"
        raise SourceError(f"{name!r} is not an address; {hint}")
    if "@" in parts.fragment or ("@" in parts.netloc and "@" in parts.path + parts.query):
        raise SourceError(f"{name!r}: can't tell where the password ends; {ENCODE}")
    return Address(
        name=name,
        url=parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl(),
        scheme=parts.scheme,
        host=host,
        port=port,
        user=None if parts.username is None else urllib.parse.unquote(parts.username),
        password=None if parts.password is None else urllib.parse.unquote(parts.password),
        given=text,
    )
