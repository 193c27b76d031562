"""Where the endpoint listens, and the token that it wants of clients."""

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

TOKEN = "MALT_TOKEN"
"""The environment variable that may hold the token."""
BACKLOG = 128
"""Connections that wait to be accepted."""
_LEAST_TOKEN = 16  # characters


@dataclass(frozen=True)
class Address:
    """Where to listen, and the file of the token, if there is one."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    token_file: str = ""


LOCAL = Address()


def read_token(file: str) -> str:
    """The token of a file, or of the environment where no file is named; empty where there is
    neither. Raises ValueError for a file that cannot be read, and for what is easily guessed."""
    source = f"--token-file={file}" if file else TOKEN
    try:
        token = Path(file).read_text(encoding="ascii") if file else os.environ.get(TOKEN, "")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: cannot be read ({type(error).__name__})") from error
    token = token.strip()
    good = len(token) >= _LEAST_TOKEN and token.isascii() and token.isprintable()
    if (file or token) and (not good or " " in token):
        raise ValueError(
            f"{source}: a token is at least {_LEAST_TOKEN} characters of ASCII without spaces; "
            "make one: openssl rand -hex 32"
        )
    return token


def listen(host: str, port: int, token: str = "") -> socket.socket:
    """A socket that takes connections; port 0 is any free one.

    Raises ValueError naming the flag for an address that cannot be had, and for one that other
    machines reach where there is no token.
    """
    if not 0 <= port < 1 << 16:
        raise ValueError(f"--port: {port} is no port; give one from 0 to 65535")
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ValueError(f"--host: {host!r} is no address of this machine ({error})") from error
    if not ipaddress.ip_address(place[0]).is_loopback and not token:
        raise ValueError(
            f"--host={host}: other machines can ask there, which takes a token: "
            f"--token-file=FILE, or {TOKEN} in the environment"
        )
    try:
        return socket.create_server(place[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(f"--host: {host!r} is no address of this machine") from error
        raise ValueError(f"--port: {port} cannot be had ({error}); give another one") from error
