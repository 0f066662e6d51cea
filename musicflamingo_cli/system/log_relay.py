"""Log records that travel: collected in one process, shown in another as if they had been logged there."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from logging.handlers import QueueHandler

_PACKAGE = __name__.partition(".")[0]
_MOST = 1000  # records that wait; of more, the oldest are dropped


class RecordCollector(QueueHandler):
    """Keeps the package's records of ``level`` and above, in a form that pickles, until they are drained."""

    def __init__(self, level: int = logging.INFO) -> None:
        self._records: deque[logging.LogRecord] = deque(maxlen=_MOST)
        super().__init__(self._records)  # type: ignore[arg-type]
        self.setLevel(level)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Keep a record whose text is complete."""
        self._records.append(record)

    def install(self) -> None:
        """Collect from now on what the package logs in this process."""
        package = logging.getLogger(_PACKAGE)
        package.addHandler(self)
        package.setLevel(min(package.level or logging.INFO, self.level))

    def drain(self) -> list[logging.LogRecord]:
        """Return the records since the last call."""
        drained = []
        while self._records:
            drained.append(self._records.popleft())
        return drained


def replay(records: Iterable[logging.LogRecord], origin: str) -> None:
    """Log records of another process here; ``origin`` (a machine's name) begins their text."""
    for record in records:
        record.msg = f"{origin}: {record.getMessage()}"
        record.args = None
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
