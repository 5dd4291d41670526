"""Opens video files for writing: H.264 by OpenCV or by the system's ffmpeg, else MPEG-4 Part 2."""

import contextlib
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import UsageError
from edge_runtime.sources.opencv import cv2, openable

log = logging.getLogger("edge_runtime")

H264 = {".mp4": "avc1", ".mkv": "H264"}
"""OpenCV's codecs that browsers and phones play."""

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""Codecs that every OpenCV has: MPEG-4 Part 2 and JPEGs."""

FINISH_S = 30.0
"""How long ffmpeg may take to finish a file."""


class Writer(Protocol):
    """A video that takes frames, uint8 [H, W, 3] BGR, all of one size."""

    def write(self, pixels: NDArray[np.uint8]) -> object:
        """Append a frame; OSError if it can't be written."""

    def release(self) -> object:
        """Finish the file."""


class Ffmpeg:
    """The system's ffmpeg, which gets the frames on its standard input."""

    def __init__(self, ffmpeg: str, path: Path, fps: float, size: tuple[int, int]) -> None:
        raw = (
            "-f",
            "rawvideo",
            "-pixel_format",
            "bgr24",
            "-video_size",
            f"{size[0]}x{size[1]}",
            "-framerate",
            f"{fps:f}",
        )
        # Two thirds of veryfast's time for a tenth more bytes. Without delay, so that a power cut costs little.
        coding = ("-c:v", "libx264", "-preset", "superfast", "-tune", "zerolatency", "-pix_fmt", "yuv420p")
        command = [ffmpeg, "-v", "quiet", "-y", *raw, "-i", "-", *coding, str(path.absolute())]
        # In its own session: Ctrl-C ends us, and we end it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def write(self, pixels: NDArray[np.uint8]) -> None:
        """Append a frame; OSError if ffmpeg has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(pixels.data)

    def release(self) -> None:
        """Finish the file."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(FINISH_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def find_ffmpeg() -> str | None:
    """Return the system's ffmpeg if it encodes H.264."""
    found = shutil.which("ffmpeg")
    with contextlib.suppress(OSError):
        if found and b" libx264 " in subprocess.run([found, "-v", "quiet", "-encoders"], capture_output=True).stdout:
            return found
    return None


def open_writer(path: Path, fps: float, size: tuple[int, int]) -> Writer:
    """Return a new video at `path`, which ends in one of CODECS, of `size` (width, height), both even.

    Raises:
        UsageError: it can't be written there.
    """
    try:
        path.open("wb").close()
    except OSError as error:
        raise UsageError(f"{path}: can't be written ({error.strerror}); choose another place") from None
    suffix = path.suffix.lower()
    if codec := H264.get(suffix):
        if (writer := _opencv(path, codec, fps, size)).isOpened():
            return writer
        if ffmpeg := find_ffmpeg():
            return Ffmpeg(ffmpeg, path, fps, size)
        log.warning(f"{path}: there is no H.264 encoder here, so browsers and phones may not play it; install ffmpeg")
    writer = _opencv(path, CODECS[suffix], fps, size)
    if not writer.isOpened():
        raise UsageError(f"{path}: a video can't be written there; choose another place")
    return writer


def _opencv(path: Path, codec: str, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    with openable(path) as name:
        return cv2.VideoWriter(name, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
