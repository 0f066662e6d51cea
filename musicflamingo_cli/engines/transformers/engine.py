"""Engine `transformers`."""

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.worker_engine import WorkerEngine
from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.models.model import Checkpoint


class TransformersEngine(WorkerEngine):
    """Runs a checkpoint."""

    name = "transformers"

    def __init__(self, settings: Settings, checkpoint: Checkpoint, at_once: int) -> None:
        raise ToolMissingError("not yet")
