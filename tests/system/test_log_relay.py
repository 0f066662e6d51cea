from __future__ import annotations

import logging
import pickle

import pytest

from musicflamingo_cli.system.log_relay import RecordCollector, replay


class Unpicklable:
    def __str__(self) -> str:
        return "a thing"

    def __reduce__(self) -> str:
        raise TypeError


def test_records_travel(caplog: pytest.LogCaptureFixture) -> None:
    collector = RecordCollector()
    collector.install()
    logger = logging.getLogger("musicflamingo_cli.somewhere")
    try:
        logger.warning("%s in %s", 3, Unpicklable())
        logger.debug("a detail")
        try:
            raise OSError("gone")
        except OSError:
            logger.exception("it failed")
    finally:
        logging.getLogger("musicflamingo_cli").removeHandler(collector)
    records = pickle.loads(pickle.dumps(collector.drain()))
    assert collector.drain() == []
    caplog.clear()
    with caplog.at_level(logging.INFO, "musicflamingo_cli"):
        replay(records, "node7")
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert caplog.records[0].getMessage() == "node7: 3 in a thing"
    assert "gone" in caplog.records[1].getMessage()


def test_a_flood_keeps_the_newest() -> None:
    collector = RecordCollector()
    for number in range(1500):
        collector.handle(logging.LogRecord("musicflamingo_cli", logging.INFO, "", 0, "%d", (number,), None))
    messages = [record.getMessage() for record in collector.drain()]
    assert (len(messages), messages[-1]) == (1000, "1499")
