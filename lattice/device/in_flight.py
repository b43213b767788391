"""Memory that a GPU may not have read yet. It is held until the GPU has, and then let go.

Two kinds are held. Pinned copies of index arrays are a few kilobytes of our own. Each new copy lets go of the copies
that have been read. A caller's arrays are large, and no other call may ever come. So a thread waits for the device and
lets them go.
"""

import contextlib
import os
import threading
from queue import SimpleQueue

_pinned: list[tuple] = []  # (event, memory), oldest first
_lock = threading.Lock()
_arguments: SimpleQueue = SimpleQueue()  # of (event, arrays), for the thread
_of_parents: list[SimpleQueue] = []
_thread: threading.Thread | None = None


def hold_pinned(event, memory) -> None:
    """Hold pinned memory until the device has passed an event."""
    with _lock:
        _pinned[:] = [entry for entry in _pinned if not entry[0].done]
        _pinned.append((event, memory))


def hold_arguments(event, arrays: tuple) -> None:
    """Hold a caller's arrays until the device has passed an event that a thread can sleep on."""
    global _thread
    with _lock:
        if _thread is None:
            thread = threading.Thread(target=_let_go, args=(_arguments,), name="lattice-in-flight", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # No thread can be had, as while the interpreter shuts down. This call waits, and the next tries again.
                event.synchronize()
                return
            _thread = thread
    _arguments.put((event, arrays))


def _let_go(arguments: SimpleQueue) -> None:
    """What the thread does for as long as the process lives."""
    while True:
        event, arrays = arguments.get()
        # A device that has failed reads no more, and whoever waits for it is told so.
        with contextlib.suppress(Exception):
            event.synchronize()
        # Now and not when the next entry comes, until which the names would hold on to this one.
        del event, arrays


def _forget() -> None:
    """A child made by `fork` has no thread, and maybe a lock that is never released."""
    global _thread, _lock, _arguments
    # What was held stays: to free memory of a device takes the device, which a child has not.
    _of_parents.append(_arguments)
    _thread, _lock, _arguments = None, threading.Lock(), SimpleQueue()


os.register_at_fork(after_in_child=_forget)
