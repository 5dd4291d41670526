"""Examines a board: what it has and lacks, and the command that fixes it. Nothing is changed."""

import time
from typing import List, Optional

from board_setup.board.doctor import camera, cpu, driver, linux, runtime
from board_setup.board.doctor.row import Row, State, as_json, as_text, exit_code
from board_setup.board.doctor.system import System
from board_setup.isa import emulator

__all__ = ["Row", "State", "System", "as_json", "as_text", "examine", "exit_code"]


def examine(system: Optional[System] = None, *, model: Optional[str] = None, now: Optional[float] = None) -> List[Row]:
    """Examine a machine.

    Args:
        system: the machine; this one by default.
        model: the bundle to check; by default the runtime finds it as edge-detect does.
        now: the machine's clock, in seconds since 1970.
    """
    seen = system or System()
    return [
        *check_twin(seen),
        cpu.check_cpu(seen),
        cpu.check_memory(seen),
        linux.check_disk(seen),
        linux.check_distribution(seen),
        linux.check_python(seen),
        *driver.check_gpu(seen),
        camera.check_groups(seen),
        *camera.check_cameras(seen),
        cpu.check_governor(seen),
        cpu.check_temperature(seen),
        runtime.check_service(seen),
        linux.check_clock(seen, time.time() if now is None else now),
        *runtime.check_runtime(seen, model),
    ]


def check_twin(system: System) -> List[Row]:
    """If this process runs on the twin, say which checks are about the board."""
    around = emulator() if system.live else []
    seen = "under qemu: only the runtime's check computes as the board would; all other rows are about this machine"
    return [Row("twin", State.WARNING, seen)] if around else []
