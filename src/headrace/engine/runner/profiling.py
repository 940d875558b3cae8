"""Records what the engine's steps do, operator by operator."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


class StepProfiler:
    """torch's profiler around some steps. `start` and `stop` run on the engine's thread: it records that thread.

    Args:
        path: of the trace to write, in the format of chrome://tracing and Perfetto.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is recorded yet."""
        self._path = path
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities)

    def start(self) -> None:
        """Begin to record."""
        self._profile.start()

    def stop(self) -> None:
        """End, and write the trace. Raises OSError when the file cannot be written."""
        self._profile.stop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(self._path))
