"""The detector as a web page and an HTTP API; the only part of the runtime that knows HTTP."""
