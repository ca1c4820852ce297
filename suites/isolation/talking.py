"""A TCP connection between two places, that was open before networks came and went beside it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from harness.place import Place
from harness.topology import Address

PORT: Final = 31070
BOUND: Final = 3.0
LENGTH: Final = 500
"""Bytes of one word of a conversation."""
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


class Talk(NamedTuple):
    """Both ends of a connection: who made it, and who took it."""

    near: socket.socket
    far: socket.socket

    def exchange(self) -> None:
        """Send something new each way; `TimeoutError` when it does not arrive.

        Who took the connection speaks first: through an address translation that comes to the
        other side only while the flow is known, and what the other side says makes it known again.
        """
        for one, other in ((self.far, self.near), (self.near, self.far)):
            word = os.urandom(LENGTH)
            one.sendall(word)
            heard = b""
            while len(heard) < len(word):
                heard += other.recv(len(word))
            assert heard == word


@contextmanager
def talking(near: Place, far: Place, address: Address) -> Iterator[Talk]:
    """A connection from one place to the other's address, used once before the body."""
    with _listener(far, address) as ear:
        calling = near.socket(_FAMILIES[address.version], socket.SOCK_STREAM)
        calling.settimeout(BOUND)
        with calling:
            calling.connect((str(address), PORT))
            answering, _ = ear.accept()
            answering.settimeout(BOUND)
            with answering:
                talk = Talk(calling, answering)
                talk.exchange()
                yield talk


@contextmanager
def _listener(place: Place, address: Address) -> Iterator[socket.socket]:
    """A listening socket in a place."""
    with place.socket(_FAMILIES[address.version], socket.SOCK_STREAM) as ear:
        ear.settimeout(BOUND)
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind((str(address), PORT))
        ear.listen()
        yield ear
