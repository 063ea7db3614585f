"""Ports for servers that are told theirs."""

import random
import socket


def free_port():
    """Below those that outgoing connections get, so that it stays free until it is used."""
    while True:
        port = random.randint(12_000, 31_999)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
