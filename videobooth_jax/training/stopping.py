"""Stopping a run from outside: signals become a question the loop asks between steps."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator

Stopped = Callable[[], bool]
"""Whether the run was asked to stop."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stop_signals() -> Iterator[Stopped]:
    """Turn SIGTERM and SIGINT into a question; the first of them says that it was heard.

    Further ones change nothing, so that none can cut a save short. Python runs handlers between
    bytecodes of the main thread: a signal that comes while a program is being compiled is heard
    when the compiler is done.
    """
    received: list[int] = []

    def note(number: int, _: object) -> None:
        if not received:  # os.write: printing from a handler may meet a print half done
            text = f"{signal.Signals(number).name}: saving and stopping\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
        received.append(number)

    previous = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
