"""The processes of a run watch one another, so that none waits for one that is gone."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from detectron2.utils import comm

from ...errors import Preempted
from .errors import RankError, error_text

__all__ = ["GRACE", "Watch"]

GRACE = 5.0
"""Seconds that a process gets to end by itself once another one is gone: the exchange that it waits
in may fail, too, or last until a time limit of half an hour."""

_CONNECTING = 20.0  # seconds
_LONGEST_TEXT = 20_000
_LONGEST = 1 << 20  # bytes of a message
_GONE = "is gone without a word: it was killed, perhaps for want of memory (dmesg says so)"
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}  # 30 s to miss a machine

logger = logging.getLogger("dense_kd")

_current: Watch | None = None


class Watch:
    """While it is entered, the failure of any process ends this one, with a word about it.

    Each process holds a connection to the first one. The system closes it when a process dies, of
    whatever: then, or when a process says that it has failed, the first one tells the others. A
    process that is told gets :data:`GRACE` seconds to come to an error by itself, which becomes a
    :class:`RankError` that names the cause; else it ends with exit code 1.
    """

    def __init__(self, host: str, end: Callable[[str], Any] | None = None):
        """
        Args:
            host: of the first process, as the others reach it.
            end: gets what is to be said before the process is ended; None prints it.
        """
        self._host = host
        self._end = end
        self._rank, self._size = comm.get_rank(), comm.get_world_size()
        self._failure = ""  # of another process
        self._known = threading.Event()
        self._left = threading.Event()
        self._peers: dict[int, _Peer] = {}
        self._listener: socket.socket | None = None
        self._token = ""

    def __enter__(self) -> Watch:
        global _current
        if self._rank == 0:
            self._token = secrets.token_hex(16)
            self._listener = _listen(self._host)
        port = self._listener.getsockname()[1] if self._listener else 0
        told: list[Any] = [port, self._token]
        if self._size > 1:
            torch.distributed.broadcast_object_list(told, src=0)
        port, self._token = told
        _current = self
        try:
            if self._rank != 0:
                self._peers[0] = self._connect(port)
            work = self._watch_all if self._rank == 0 else self._watch_first
            threading.Thread(target=work, name="watch", daemon=True).start()
        except OSError as error:
            logger.warning(
                f"This process cannot reach process 0 at {self._host}:{port} ({error}): if one of "
                "them is gone, the other will wait for it until a time limit"
            )
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        global _current
        if isinstance(error, RuntimeError):  # perhaps of an exchange with one that is gone
            self._known.wait(GRACE / 2)
        cause = self._failure
        if error is not None and not isinstance(error, Preempted) and not cause:
            self._tell({"failed": f"{self._name()} failed: {error_text(error)[:_LONGEST_TEXT]}"})
        else:
            self._tell({"left": True})
        self._left.set()
        _current = None
        self._close()
        if isinstance(error, Exception) and cause:
            raise RankError(f"{cause}\nThis process, {self._rank}, could not go on") from error

    def _name(self) -> str:
        place = f"{socket.gethostname()}, process id {os.getpid()}"
        return f"process {self._rank} of {self._size} ({place})"

    def _connect(self, port: int) -> _Peer:
        connection = socket.create_connection((self._host, port), _CONNECTING)
        _keep_alive(connection)
        peer = _Peer(connection)
        peer.send({"token": self._token, "rank": self._rank, "name": self._name()})
        return peer

    def _tell(self, message: dict[str, Any]) -> None:
        for peer in list(self._peers.values()):
            peer.send(message)

    def _watch_first(self) -> None:
        first = self._peers[0]
        for message in first.messages():
            if "left" in message:
                return
            self._fail(str(message.get("failed", "")))
            return
        self._fail(f"process 0 of {self._size} {_GONE}")

    def _watch_all(self) -> None:
        """Accept the others; a thread for each reads what it says."""
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # it was closed
                return
            threading.Thread(target=self._watch_one, args=(connection,), daemon=True).start()

    def _watch_one(self, connection: socket.socket) -> None:
        _keep_alive(connection)
        peer = _Peer(connection)
        messages = peer.messages()
        hello = next(messages, {})
        if not hmac.compare_digest(str(hello.get("token")), self._token):
            connection.close()  # of somebody else
            return
        self._peers[int(hello["rank"])] = peer
        if self._failure:
            peer.send({"failed": self._failure})
        for message in messages:
            if "left" not in message:
                self._fail(str(message.get("failed", "")))
            return
        self._fail(f"{hello.get('name')} {_GONE}")

    def _fail(self, cause: str) -> None:
        """Another process is gone; who comes here first says why."""
        if self._known.is_set() or self._left.is_set():
            return
        self._failure = cause
        self._known.set()
        if self._rank == 0:
            self._tell({"failed": cause})
        logger.error(f"{cause}\nThis process, {self._rank}, is ended")
        if self._left.wait(GRACE):
            return
        text = f"{cause}\nThis process, {self._rank}, could not go on"
        if self._end is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._end(text)
        logging.shutdown()
        os._exit(1)

    def _close(self) -> None:
        if self._listener is not None:
            # To close it does not wake up who waits in accept.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for peer in list(self._peers.values()):
            peer.close()

    def forget(self) -> None:
        """In a fork: let go of the connections, or they would outlive the process."""
        for each in (self._listener, *(peer.connection for peer in self._peers.values())):
            if each is not None:
                os.close(each.detach())  # what else refers to it is of threads that a fork has not


class _Peer:
    """A connection that objects of JSON go through, one a line."""

    def __init__(self, connection: socket.socket):
        connection.settimeout(None)
        self.connection = connection
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        with self._lock, contextlib.suppress(OSError):
            self.connection.sendall(line)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Until the other end is closed, or sends something else."""
        with contextlib.suppress(OSError, ValueError), self.connection.makefile("rb") as file:
            while True:
                line = file.readline(_LONGEST)
                content = json.loads(line) if line.endswith(b"\n") else None
                if not isinstance(content, dict):
                    return
                yield content

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def _listen(host: str) -> socket.socket:
    try:
        return socket.create_server((host, 0))
    except OSError:  # a name of this machine that only others know
        return socket.create_server(("", 0))


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _forget_in_fork() -> None:
    global _current
    if _current is not None:
        _current.forget()
        _current = None


os.register_at_fork(after_in_child=_forget_in_fork)
