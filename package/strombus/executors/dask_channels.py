"""Messages of a gang through the Dask scheduler's queues: they pass where workers cannot reach the driver."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from distributed import Client, Queue

from strombus.executors.members import Message

__all__ = ["QueueBoardChannel", "QueueMemberChannel"]


def queue(client: Client, run_id: str, end: str) -> Any:
    """Return the queue that ends at the driver (``"driver"``) or at a member's address."""
    return Queue(f"strombus-{run_id}-{end}", client=client)


def encode(messages: list[Message]) -> list[list[Any]]:
    """Turn messages into what the scheduler can carry without pickle."""
    return [[json.dumps(header), payload] for header, payload in messages]


def decode(items: list[Any]) -> list[Message]:
    """Turn the items of a queue into messages."""
    return [(json.loads(head), bytes(payload)) for messages in items for head, payload in messages]


class QueueBoardChannel:
    """The driver's end: one queue from all members, one to each."""

    def __init__(self, client: Client, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._inbox = queue(client, run_id, "driver")
        self._outboxes: dict[str, Any] = {}

    def send(self, messages: Mapping[str, list[Message]]) -> None:
        for address, mail in messages.items():
            if address not in self._outboxes:
                self._outboxes[address] = queue(self._client, self._run_id, address)
            self._outboxes[address].put(encode(mail))

    def receive(self) -> Iterator[tuple[str, Message]]:
        for header, payload in decode(self._inbox.get(batch=True)):
            yield header["from"], (header, payload)

    def close(self) -> None:
        for one in (self._inbox, *self._outboxes.values()):
            one.close()


class QueueMemberChannel:
    """One member's end, on the worker's own client."""

    def __init__(self, client: Client, run_id: str, address: str) -> None:
        self._address = address
        self._outbox = queue(client, run_id, "driver")
        self._inbox = queue(client, run_id, address)

    def send(self, messages: list[Message]) -> None:
        self._outbox.put(encode([({**header, "from": self._address}, payload) for header, payload in messages]))

    def receive(self) -> list[Message]:
        return decode(self._inbox.get(batch=True))

    def close(self) -> None:
        self._outbox.close()
        self._inbox.close()
