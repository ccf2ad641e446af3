"""Loaded by every Python that is started with this folder in PYTHONPATH: each step towards the network is written down, and refused unless it stays on this machine."""

import os
import sys

TOLD = os.environ.get("MINICLIP_TOLD")
WATCHED = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto", "socket.sendmsg", "urllib.Request", "http.client.connect"}


def _host(event, arguments):
    """The host that is asked for, or None for a socket that is a file on this machine."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        return str(address[0]) if isinstance(address, tuple) else None
    return str(arguments[1] if event == "http.client.connect" else arguments[0])


def _watch(event, arguments):
    if event not in WATCHED:
        return
    host = _host(event, arguments)
    if host is None or event == "urllib.Request" and host.startswith(("file:", "data:")):
        return
    host = host.split("://")[-1].split("/")[0].rsplit(":", 1)[0] if event == "urllib.Request" else host
    own = {"", "None", "localhost", "::1", "::", "0.0.0.0", os.uname().nodename if hasattr(os, "uname") else ""}
    if host in own or host.startswith("127."):
        return
    with open(TOLD, "a") as file:
        file.write(f"{os.getpid()} {event} {host} {' '.join(sys.argv)[:100]}\n")
    raise OSError(f"the network is cut: {event} {host}")


if TOLD:
    sys.addaudithook(_watch)
