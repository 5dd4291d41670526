"""Check of the GPU: its device node, and whether the installed OpenCL driver still supports its generation."""

from typing import List, Optional

from board_setup.board.doctor.row import Row, State
from board_setup.board.doctor.system import System, field, version_numbers

FIRST_DRIVER_WITHOUT_OLD_CHIPS = (24, 35, 30872, 22)
"""From this version on `intel-opencl-icd` no longer supports Gen8, Gen9 and Gen11 graphics."""

GENERATIONS = {
    **dict.fromkeys((0x16, 0x22), "Gen8"),
    **dict.fromkeys((0x19, 0x1A, 0x31, 0x3E, 0x59, 0x5A, 0x87, 0x9B), "Gen9"),
    **dict.fromkeys((0x45, 0x4E, 0x8A), "Gen11"),
}
"""Intel graphics that need the older driver, by the upper byte of their PCI device number."""

RELEASES_WITH_OLD_DRIVER = (("ubuntu", "22.04"), ("ubuntu", "24.04"), ("debian", "12"))


def check_gpu(system: System) -> List[Row]:
    """Check the Intel GPU, which is useful but not required: its device node, then its driver."""
    graphics = find_intel_graphics(system)
    if graphics is None:
        return [Row("gpu", State.OK, "no Intel graphics; the CPU is used")]
    nodes = system.glob("/dev/dri/renderD*")
    if not nodes:
        fix = "lsmod | grep i915; sudo dmesg | grep i915"
        return [Row("gpu", State.WARNING, f"Intel graphics {graphics:04x}, but no /dev/dri/renderD*: CPU only", fix)]
    name = f"Intel graphics {graphics:04x} ({GENERATIONS.get(graphics >> 8, 'Gen12 or newer')})"
    return [Row("gpu", State.OK, f"{name}, {', '.join(nodes)}"), check_driver(system, graphics)]


def check_driver(system: System, graphics: int) -> Row:
    """Check the OpenCL driver for graphics with this PCI device number."""
    installed = {}
    for entry in system.read("/var/lib/dpkg/status").split("\n\n"):
        if field(entry, "Status") == "install ok installed":
            installed[field(entry, "Package")] = field(entry, "Version")
    generation = GENERATIONS.get(graphics >> 8)
    legacy = installed.get("intel-opencl-icd-legacy1") or installed.get("intel-opencl-icd-legacy")
    current = installed.get("intel-opencl-icd")
    if generation is None:
        if current:
            return Row("gpu driver", State.OK, f"intel-opencl-icd {current}")
        fix = "sudo apt-get install intel-opencl-icd"
        return Row("gpu driver", State.WARNING, "no OpenCL driver: CPU only", fix)
    if legacy:
        return Row("gpu driver", State.OK, f"the driver for {generation}, {legacy}")
    if current and version_numbers(current) < FIRST_DRIVER_WITHOUT_OLD_CHIPS:
        return Row("gpu driver", State.OK, f"intel-opencl-icd {current}, which still supports {generation}")
    seen = f"intel-opencl-icd {current} no longer supports {generation}" if current else "no OpenCL driver"
    if not current and system.release in RELEASES_WITH_OLD_DRIVER:
        fix = "sudo apt-get install intel-opencl-icd   (this distribution's version still supports this chip)"
    elif system.release == ("ubuntu", "20.04"):
        fix = "do-release-upgrade   (the driver for this chip needs Ubuntu 22.04 or newer; the CPU works without it)"
    else:
        fix = "sudo apt-get install intel-opencl-icd-legacy1   (and its libigc1, from Intel's releases, 24.35.30872)"
    return Row("gpu driver", State.WARNING, seen + ": CPU only", fix)


def find_intel_graphics(system: System) -> Optional[int]:
    """Return the PCI device number of the first Intel display controller, None if there is none."""
    for device in system.glob("/sys/bus/pci/devices/*"):
        kind, vendor = system.read(device + "/class"), system.read(device + "/vendor")
        if kind.startswith("0x03") and vendor == "0x8086":
            return int(system.read(device + "/device"), 16)
    return None
