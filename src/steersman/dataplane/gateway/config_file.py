"""The files between the control plane and a gateway process (see ports.gateway).

A configuration is looked at by identity (inode, mtime, size) and read only when that changed. One that cannot
be read, is of another format, or is of a lower epoch, or of the same epoch and a lower position, than the
one in use is ignored and counted. Files written here are replaced whole by a rename and not synced: figures
and addresses mean nothing after a power cut.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from steersman.ports.gateway import CONFIG_FILE, GATEWAY, GatewayConfig

CONFIG_BYTES_MAX: Final = 64 * 2**20
FORMAT: Final = 1

_decoder = msgspec.json.Decoder(GatewayConfig)


class ConfigFile:
    """The configuration of a home. `refused` counts what was ignored."""

    def __init__(self, home: Path) -> None:
        self._path = home / GATEWAY / CONFIG_FILE
        self._seen: tuple[int, int, int] | None = None
        self.config: GatewayConfig | None = None
        self.refused = 0

    def look(self) -> GatewayConfig | None:
        """A new configuration to use, or None when there is none."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return None
        self._seen = seen
        config = self._read()
        if config is None or not self._newer(config):
            self.refused += 1
            return None
        self.config = config
        return config

    def _read(self) -> GatewayConfig | None:
        try:
            with self._path.open("rb") as file:
                data = file.read(CONFIG_BYTES_MAX + 1)
            config = _decoder.decode(data) if len(data) <= CONFIG_BYTES_MAX else None
        except (OSError, msgspec.DecodeError):
            return None
        return config if config is not None and config.format == FORMAT else None

    def _newer(self, config: GatewayConfig) -> bool:
        now = self.config
        return now is None or (config.epoch, config.position) >= (now.epoch, now.position)


def replace(path: Path, data: bytes) -> bool:
    """Put a file in place at once, readable by its owner only; False when that cannot be done."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        return False
    return True
