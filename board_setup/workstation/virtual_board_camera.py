"""Runs on the virtual board: shows a folder of JPEG pictures in a loop on a v4l2loopback device, as a camera."""

import argparse
import fcntl
import glob
import os
import struct
import subprocess
import time
from typing import Tuple

VIDIOC_S_FMT = 0xC0D05605
VIDIOC_STREAMON = 0x40045612
V4L2_BUF_TYPE_VIDEO_OUTPUT = 2
V4L2_FIELD_NONE = 1
MJPG = 0x47504A4D
SRGB = 8
FRAME_BYTES = 1 << 21
START_OF_FRAME = (0xC0, 0xC1, 0xC2)


def jpeg_size(data: bytes) -> Tuple[int, int]:
    """Return width and height of a JPEG picture (ITU T.81, B.2.2).

    Raises:
        ValueError: it is not a JPEG picture.
    """
    place = 2
    while data[:2] == b"\xff\xd8" and place + 9 < len(data):
        marker, length = data[place + 1], struct.unpack(">H", data[place + 2 : place + 4])[0]
        if marker in START_OF_FRAME:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return width, height
        place += 2 + length
    raise ValueError("not a JPEG picture")


def set_format(device: int, width: int, height: int) -> None:
    """Set the device's format to JPEG frames of this size (struct v4l2_format, 208 bytes)."""
    pixel = struct.pack("=12I", width, height, MJPG, V4L2_FIELD_NONE, 0, FRAME_BYTES, SRGB, 0, 0, 0, 0, 0)
    fcntl.ioctl(device, VIDIOC_S_FMT, struct.pack("=II", V4L2_BUF_TYPE_VIDEO_OUTPUT, 0) + pixel.ljust(200, b"\0"))


def start_streaming(device: int) -> None:
    """Start streaming; without this call the device accepts no other writer afterwards."""
    fcntl.ioctl(device, VIDIOC_STREAMON, struct.pack("=i", V4L2_BUF_TYPE_VIDEO_OUTPUT))


def announce(device: str) -> None:
    """Make udev look at the device again: before the first frame it does not count as a camera."""
    node = "/sys/class/video4linux/" + os.path.basename(device)
    subprocess.call(["udevadm", "trigger", "--action=change", node])


def main() -> None:
    """Show the pictures until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device")
    parser.add_argument("folder")
    parser.add_argument("--fps", type=float, default=10.0)
    options = parser.parse_args()
    frames = []
    for path in sorted(glob.glob(os.path.join(glob.escape(options.folder), "*.jpg"))):
        with open(path, "rb") as file:
            frames.append(file.read())
    device = os.open(options.device, os.O_RDWR)
    set_format(device, *jpeg_size(frames[0]))
    start_streaming(device)
    announce(options.device)
    while True:
        for frame in frames:
            os.write(device, frame)
            time.sleep(1.0 / options.fps)


if __name__ == "__main__":
    main()
