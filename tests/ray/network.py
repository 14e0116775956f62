"""Machines on this machine: network namespaces on a bridge, with names and a subnet that nobody uses.

Every name begins with one tag, by which a keeper that knows nothing else finds what is left of it.
"""

import os
import secrets
import shutil
import socket
import subprocess

FIRST_HOST = 10
PARTS = range(8, 250)


class Network:
    """The machine itself is `.1` on the bridge, and so can reach every namespace."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._bridge = f"rb{tag}"
        ip("link", "add", self._bridge, "type", "bridge")
        self._net = self._take_subnet()
        ip("link", "set", self._bridge, "up")

    def _take_subnet(self) -> str:
        """Given first and looked at after, so that of two that take the same one at least one gives way."""
        for part in PARTS:
            net = f"10.77.{part}"
            if net_users(net):
                continue
            ip("addr", "add", f"{net}.1/24", "dev", self._bridge)
            if net_users(net) == 1:
                return net
            ip("addr", "del", f"{net}.1/24", "dev", self._bridge)
        raise AssertionError("no subnet 10.77.x.0/24 is free")

    @property
    def host(self) -> str:
        """The address of the machine itself, as the namespaces see it."""
        return f"{self._net}.1"

    def add(self, number: int) -> tuple[str, tuple[str, ...]]:
        """A namespace: its address, and what to put before a command to run in it."""
        name, address = f"rn{self._tag}{number}", f"{self._net}.{FIRST_HOST + number}"
        ip("netns", "add", name)
        ip("link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"v{name}", "master", self._bridge, "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "route", "add", "default", "via", self.host)
        return address, ("ip", "netns", "exec", name)

    def link(self, name: str, *, up: bool) -> None:
        ip("link", "set", f"v{name}", "up" if up else "down")


def net_users(net: str) -> int:
    """How many addresses of this machine are in a subnet."""
    said = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    return sum(f" {net}." in line for line in said.splitlines())


def spaces(tag: str) -> list[str]:
    """The namespaces of a network."""
    said = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    return [line.split()[0] for line in said.splitlines() if line.startswith(f"rn{tag}")]


def remove(tag: str) -> None:
    """All that is left of a network; its links before its namespaces, for a process may hold one of those."""
    said = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=False).stdout
    links = [line.split()[0].partition("@")[0] for line in said.splitlines()]
    for name in (name for name in links if name.startswith((f"vrn{tag}", f"rb{tag}"))):
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
    for name in spaces(tag):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"


def may_make_namespaces() -> bool:
    """Whether this user and this kernel allow network namespaces; tried, for nothing else tells."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"rt{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return False
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return True


def host_address() -> str:
    """The address by which this machine names itself to others; Ray takes no loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
