"""The detector as a web page and a service; the one part of the runtime that knows HTTP."""
