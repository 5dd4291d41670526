"""Default settings that the commands, the Python API and the web service share."""

WINDOW = 15
"""How many of a face's last judged frames its verdict uses."""

MIN_FACE_PX = 48
"""Side of a face's box below which the verdict is uncertain."""

STALL_TIMEOUT_S = 5.0
"""Seconds without a frame after which a camera counts as lost."""

SNAPSHOT_DAYS = 7.0
"""Age at which snapshots are deleted."""

REVIEW_DAYS = 14.0
"""Age at which faces kept for review are deleted."""

REVIEW_PER_HOUR, REVIEW_PER_DAY = 12, 60
"""Most faces kept for review in an hour and in a day."""

REVIEW_SAMPLE = 0.02
"""Share of all faces that is kept for review whatever the verdict."""

SNAPSHOT_SPACE = "500M"
"""Disk space that snapshots may take; beyond it the oldest are deleted."""
