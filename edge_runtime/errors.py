"""The one family of errors that are the user's to mend, each told in one line.

    EdgeError
    ├── UsageError        a command was given something that can't be used
    ├── PictureError      a picture that can't be read
    │   └── LargePictureError   it has too many pixels
    ├── SourceError       a camera, video or stream that can't be opened or read
    ├── BundleError       a bundle that is missing, changed or of another format
    │   ├── MissingBundleError  none was named and none was found
    │   └── ContractError   its contract can't be read
    ├── DeviceError       a device that fails or computes something else
    │   └── MissingDeviceError  it is not there at all
    ├── DataError         folders or a catalog that can't be used
    ├── CheckpointError   a checkpoint that can't be used
    └── GateError         an export that was measured and did not hold

A message says what is wrong, with which value, and what to do.
"""


class EdgeError(Exception):
    """An error of the user's making; `exit_code` is what the command ends with."""

    exit_code = 2

    def __str__(self) -> str:
        """Return what is told, on one line, whatever line breaks a name in it has."""
        return " ".join(super().__str__().splitlines())


class UsageError(EdgeError):
    """A command was given something that it can't use."""


class PictureError(EdgeError):
    """A picture that can't be read."""


class LargePictureError(PictureError):
    """A picture of too many pixels."""


class SourceError(EdgeError):
    """A camera, video or stream that can't be opened or read."""


class BundleError(EdgeError):
    """A bundle that is missing, changed or of another format."""


class MissingBundleError(BundleError):
    """No bundle was named, and none is where one is looked for."""


class ContractError(BundleError):
    """A contract that can't be read."""


class DeviceError(EdgeError):
    """A device that fails, or computes something else than it should."""


class MissingDeviceError(DeviceError):
    """A device that is not there."""


class DataError(EdgeError):
    """Folders of pictures or a catalog that can't be used."""


class CheckpointError(EdgeError):
    """A checkpoint that can't be used."""


class GateError(EdgeError):
    """An export that was measured and did not hold."""

    exit_code = 1
