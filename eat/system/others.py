"""The other processes of a run, on any machine: each learns when one of them has ended.

All are connected to the main one, rank 0, which passes on what it learns. Nothing is sent while all
live. The system closes the connection of a process that ends, however it does, and gives up one
whose machine no longer answers. So neither a busy process nor a slow collective is taken for dead.
"""

import json
import logging
import multiprocessing
import os
import platform
import secrets
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from eat.system.stops import TrainingError

if TYPE_CHECKING:
    from torch.distributed import Store

log = logging.getLogger("eat")
KEY = "eat/main"  # of the store: where the main process listens, and the id of this start
ARRIVAL = 600.0  # seconds in which all processes connect
ANSWER = 5.0  # seconds in which one of them answers
SILENCE = 40  # seconds after which a machine that does not answer is given up
GRACE = 3.0  # seconds in which this process may end by itself after another has
LAG = 10.0  # seconds by which the system may tell of an end after a collective has failed
POLL = 0.1


class Peer:
    """A connection to another process, which sends lines of JSON."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(ANSWER)
        self.socket, self.lines = connection, connection.makefile()
        self.rank, self.name = 0, ""
        self.left = False  # it has said goodbye

    def know(self, rank: int, pid: int, host: str) -> None:
        """Keep who that is, and have the system probe its machine whenever it is silent."""
        self.rank, self.name = rank, f"rank {rank} (process {pid} on {host})"
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        probes = 3
        pause = SILENCE // (probes + 1)
        for option, value in {
            "TCP_KEEPIDLE": pause,
            "TCP_KEEPALIVE": pause,  # the same on macOS
            "TCP_KEEPINTVL": pause,
            "TCP_KEEPCNT": probes,
        }.items():
            if hasattr(socket, option):
                self.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def send(self, message: Any) -> None:
        """Send a line."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Any:
        """Wait for a line.

        Raises:
            OSError: none comes.
            ValueError: the connection was closed, or this is no line of ours.
        """
        return json.loads(self.lines.readline())

    def last_words(self) -> tuple[int, str] | None:
        """What the connection's end or last line says: rank and fate of a process, or a goodbye."""
        try:
            line = self.lines.readline()
        except ConnectionError:
            line = ""
        except OSError:
            return self.rank, f"{self.name} cannot be reached any more"
        return json.loads(line) if line else (self.rank, f"{self.name} was killed or has failed")

    def close(self) -> None:
        """Close the connection."""
        self.lines.close()
        self.socket.close()


class Others:
    """This process's connections, and a thread that ends it soon after another has failed.

    A collective would fail without the other's name, or on GPUs wait for it without end.

    Attributes:
        start: an id of this start of the run, the same in all its processes.

    Args:
        store: of this start or, with torchrun's, of those before it too.
        rank: of this process.
        size: the number of processes.

    Raises:
        TrainingError: some process has not connected in time.
    """

    def __init__(self, store: "Store", rank: int, size: int) -> None:
        self.rank = rank
        self.name = f"rank {rank} (process {os.getpid()} on {platform.node()})"
        self.start = ""
        self._peers = self._gather(store, size) if rank == 0 else [self._find_main(store)]
        if hasattr(os, "register_at_fork"):  # a loading process may outlive this one
            os.register_at_fork(after_in_child=self._close_copies)
        self._ended: tuple[int, str] | None = None  # the rank and fate of the first that did
        self._over = threading.Event()
        self._thread = threading.Thread()
        self.watch()

    def _close_copies(self) -> None:
        for peer in self._peers:
            if (copy := peer.socket.detach()) >= 0:
                os.close(copy)

    def _gather(self, store: "Store", size: int) -> list[Peer]:
        """Wait until all others have connected to this, the main process."""
        peers: dict[int, Peer] = {}
        self.start, deadline = secrets.token_hex(8), time.monotonic() + ARRIVAL
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        with socket.create_server(
            ("", 0), family=family, backlog=size, dualstack_ipv6=both
        ) as door:
            store.set(KEY, json.dumps([door.getsockname()[1], self.start]))
            while len(peers) < size - 1:
                door.settimeout(max(deadline - time.monotonic(), POLL))
                try:
                    peer = Peer(door.accept()[0])
                    start, rank, pid, host = peer.receive()
                    if start == self.start:
                        peer.send([os.getpid(), platform.node()])
                        peer.know(rank, pid, host)
                        peers[rank] = peer
                except (OSError, ValueError, TypeError):  # nobody came, or nobody of this run
                    if time.monotonic() > deadline:
                        missing = ", ".join(str(r) for r in range(1, size) if r not in peers)
                        raise TrainingError(
                            f"of {size} processes, those of rank {missing} have not connected to "
                            f"{self.name} within {ARRIVAL / 60:g} minutes"
                        ) from None
        return [*peers.values()]

    def _find_main(self, store: "Store") -> Peer:
        """Connect to the main process, which may not be there yet."""
        address, deadline = os.environ["MASTER_ADDR"], time.monotonic() + ARRIVAL
        while time.monotonic() < deadline:
            try:
                port, self.start = json.loads(store.get(KEY))
                peer = Peer(socket.create_connection((address, port), timeout=ANSWER))
                peer.send([self.start, self.rank, os.getpid(), platform.node()])
                peer.know(0, *peer.receive())
                return peer
            except (OSError, ValueError, TypeError):  # the store has the place of an earlier start
                time.sleep(POLL)
            except RuntimeError:  # the store itself is gone
                break
        raise TrainingError(f"the process of rank 0 on {address} cannot be reached")

    def watch(self, advice: str = "") -> None:
        """From now on, end this process soon after another; ``advice`` says then how to go on."""
        self.stop()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(advice,), daemon=True)
        self._thread.start()

    def stop(self, error: BaseException | None = None) -> None:
        """From now on, let this process end in its own time, unless ``error`` is another's end."""
        if isinstance(error, RuntimeError) and not isinstance(error, TrainingError):
            self._thread.join(LAG)
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def leave(self, error: BaseException | None) -> None:
        """Tell the others that this process has done its part, or that it fails by ``error``."""
        self.stop(error)
        failed = f"{self.name} has failed: {str(error) or type(error).__name__:.400}"
        for peer in self._peers:
            try:
                peer.send(None if error is None else [self.rank, failed])
                peer.close()
            except OSError:  # it has left before
                continue

    def _watch(self, advice: str) -> None:
        self._ended = self._ended or self._listen()  # what an earlier watch has heard holds
        if self._ended is not None:
            self._end(*self._ended, advice)

    def _listen(self) -> tuple[int, str] | None:
        """Wait for the end of a process and pass it on: its rank and fate; none if told to stop."""
        with selectors.DefaultSelector() as selector:
            for peer in self._peers:
                if peer.left:  # in an earlier watch
                    continue
                selector.register(peer.socket, selectors.EVENT_READ, peer)
            while not self._over.is_set() and selector.get_map():
                for key, _ in selector.select(POLL):
                    sender: Peer = key.data
                    if (ended := sender.last_words()) is not None:
                        self._pass_on(ended)
                        return ended
                    sender.left = True
                    selector.unregister(key.fileobj)
        return None

    def _pass_on(self, ended: tuple[int, str]) -> None:
        for peer in self._peers if self.rank == 0 else ():
            try:
                peer.send(ended)
            except OSError:
                continue

    def _end(self, ended: int, fate: str, advice: str) -> None:
        """End this process, unless it does so by itself: what stops one may stop all."""
        if self._over.wait(GRACE):
            return
        first = self.rank - int(os.environ.get("LOCAL_RANK", "0"))  # on this machine
        if self.rank == first + (ended == first):
            log.error("the run ends: %s%s", fate, advice)
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(1)
