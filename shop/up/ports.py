"""Ports on 127.0.0.1: a taken one is no error, the next free one is used, and kept for the next run."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


class BadPort(ValueError):
    """A port number that is none; the message is a sentence for people."""


def parse(text: str) -> int:
    """A port number a person gave. Raises `BadPort`."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise BadPort(f"PORT is {text!r}; it must be a number from 1 to 65535.")
    return int(text)


def is_free(port: int) -> bool:
    """Whether nothing listens there and we may listen there."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        # Where somebody listens on all addresses, some systems let us bind the loopback address nevertheless.
        if probe.connect_ex((HOST, port)) == 0:
            return False
    with socket.socket() as probe:
        # Else the connections of a run that has just ended would make its port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def any_free() -> int:
    """A free port, whichever the system gives."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def choose(preferred: dict[str, int], remembered: dict[str, int]) -> dict[str, int]:
    """A free port for each name: the remembered one, else the preferred one, else the next free one above."""
    chosen: dict[str, int] = {}
    for name, wish in preferred.items():
        port = remembered.get(name, wish)
        while port in chosen.values() or not is_free(port):
            port = port + 1 if port < 65535 else any_free()
        chosen[name] = port
    return chosen
