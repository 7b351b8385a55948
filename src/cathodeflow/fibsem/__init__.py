"""FIB-SEM and XCT slices: segment every voxel into phases, with uncertainty (MatPhase)."""

from cathodeflow.stage import exported

__getattr__, __dir__ = exported(__name__)
