"""Errors the user can fix, printed as one line.

    EdgeError
    ├── UsageError        an argument of a command can't be used
    ├── PictureError      a picture can't be read
    │   └── LargePictureError   it has too many pixels
    ├── SourceError       a camera, video or stream can't be opened or read
    ├── BundleError       a bundle is missing, was changed, or has another format
    │   ├── MissingBundleError  none was named and none was found
    │   └── ContractError   its contract can't be read
    ├── DeviceError       a device fails or gives wrong answers
    │   └── MissingDeviceError  it doesn't exist
    ├── StorageError      an object store or disk keeps failing
    ├── DataError         folders of pictures or a catalog can't be used
    ├── CheckpointError   a checkpoint can't be used
    └── GateError         an export missed its accuracy limits

A message says what is wrong, with which value, and what to do.
"""

from edge_runtime.printable import printable


class EdgeError(Exception):
    """An error the user can fix; the command ends with `exit_code`."""

    exit_code = 2

    def __str__(self) -> str:
        """Return the message on one line, without control characters that a name in it may have."""
        return printable(super().__str__())


class UsageError(EdgeError):
    """An argument of a command can't be used."""


class PictureError(EdgeError):
    """A picture can't be read; `reason` is the message without the picture's `name`."""

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason = printable(reason)


class LargePictureError(PictureError):
    """A picture has too many pixels."""


class SourceError(EdgeError):
    """A camera, video or stream can't be opened or read."""


class BundleError(EdgeError):
    """A bundle is missing, was changed, or has another format."""


class MissingBundleError(BundleError):
    """No bundle was named, and none was found."""


class ContractError(BundleError):
    """A contract can't be read."""


class DeviceError(EdgeError):
    """A device fails or gives wrong answers."""


class MissingDeviceError(DeviceError):
    """A device doesn't exist."""


class StorageError(EdgeError):
    """An object store or disk keeps failing."""


class DataError(EdgeError):
    """Folders of pictures or a catalog can't be used."""


class CheckpointError(EdgeError):
    """A checkpoint can't be used."""


class GateError(EdgeError):
    """An export missed its accuracy limits."""

    exit_code = 1
