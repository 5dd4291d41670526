"""An RTSP camera that shows one colour, by GStreamer's own server; run by Debian's Python, which has its bindings."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
port, width, height = sys.argv[1:4]
camera = GstRtspServer.RTSPMediaFactory()
camera.set_shared(True)
camera.set_launch(
    "( videotestsrc is-live=true pattern=solid-color foreground-color=0xffe61e1e "
    f"! video/x-raw,format=I420,width={width},height={height},framerate=15/1 ! jpegenc ! rtpjpegpay name=pay0 )"
)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
server.get_mount_points().add_factory("/door", camera)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
