"""Where everything lies on a board, and what versions of the world it is made for."""

STATE = "/var/lib/deepfake-edge"
CURRENT = STATE + "/current"
"""A link to the version in use: a bundle, in which `runtime` is a link to its virtual environment."""

VERSIONS = STATE + "/versions"
PROGRAMS = "/opt/deepfake-edge"
RUNTIME_PYTHON = CURRENT + "/runtime/bin/python"
SERVICE = "deepfake-edge.service"
USER = "deepfake-edge"

OPENVINO_FROM = (2025, 4)
OPENVINO_BELOW = (2026, 5)
"""The same range as in pyproject.toml: newer wheels may have lost the kernels for CPUs without AVX."""

PYTHON_FROM = (3, 10)
PYTHON_BELOW = (3, 14)
