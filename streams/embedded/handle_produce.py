"""Produce: check, give offsets, answer after the sync."""

from __future__ import annotations

import logging
from collections.abc import Callable

from streams.embedded import batch
from streams.embedded.broker import Broker, now_ms
from streams.embedded.codec import ERRORS
from streams.embedded.errors import ProtocolRefusalError
from streams.embedded.hot_codec import ProducedPartition, ProduceRequest, ProduceResult, write_produce
from streams.embedded.partition import PartitionLog
from streams.embedded.record_keys import require_keys

logger = logging.getLogger(__name__)

_UNKNOWN = ERRORS["unknown_topic_or_partition"]

# Respond gets the response body, or None when the client wants no answer.
Respond = Callable[[list[bytes] | None], None]


class ProduceHandler:
    """Appends at once, on the event loop; the answer waits for the commit cycle."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def handle(self, request: ProduceRequest, version: int, respond: Respond) -> None:
        results = [self._append(request, item, version) for item in request.partitions]
        if request.acks == 0:
            respond(None)
            return
        # A repeated batch may still be on its way to the disk, so every answer waits.
        self._broker.commit.after(lambda: respond([write_produce(results, version)]))

    def _append(self, request: ProduceRequest, item: ProducedPartition, version: int) -> ProduceResult:
        log = self._broker.topics.partition(item.topic, item.partition)
        if log is None:
            return ProduceResult(item.topic, item.partition, _UNKNOWN, -1, -1, "no such topic or partition")
        try:
            offset = self._append_batch(request, item, log, version)
        except ProtocolRefusalError as refusal:
            logger.debug("%s-%d: batch refused, %s", item.topic, item.partition, refusal)
            error = ERRORS[refusal.code]
            return ProduceResult(item.topic, item.partition, error, -1, log.start_offset, str(refusal))
        return ProduceResult(item.topic, item.partition, 0, offset, log.start_offset)

    def _append_batch(
        self, request: ProduceRequest, item: ProducedPartition, log: PartitionLog, version: int
    ) -> int:
        if version < 3:
            raise ProtocolRefusalError("unsupported_version", "record format 2 needs Produce version 3")
        if request.acks not in (-1, 0, 1):
            raise ProtocolRefusalError("invalid_required_acks", f"acks={request.acks}")
        if self._broker.disk.is_low:
            raise ProtocolRefusalError("kafka_storage_error", "the disk is full")
        if item.records is None:
            raise ProtocolRefusalError("invalid_record", "no batch")
        header = batch.validate_produced(item.records, log.config.batch_bytes_max)
        if log.config.is_compacted:
            require_keys(item.records, header)
        if header.is_transactional:
            error = self._broker.transactions.check_produce(
                header.producer_id, header.producer_epoch, item.topic, item.partition
            )
            if error:
                raise ProtocolRefusalError(
                    error, f"producer {header.producer_id}, epoch {header.producer_epoch}"
                )
        return log.append(item.records, header, now_ms())
