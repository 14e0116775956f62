"""Where a home is, what is in it, and whether it may be used.

The home is --home, else STEERSMAN_HOME, else $XDG_STATE_HOME/steersman, else ~/.local/state/steersman. It
holds secrets and the right to run programs, so it must be a folder that belongs to this user and that no one
else can enter; Steersman makes one with mode 0700 and refuses any other. Nothing of an existing folder is
changed to make it fit: a folder that others can enter may hold what others put there.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from steersman.model.errors import HomeError

ENV_HOME = "STEERSMAN_HOME"
ENV_PORT = "STEERSMAN_PORT"

PORT_DEFAULT = 8470
PORT_MAX = 65_535

SERVER_FILE = "server.json"
SERVER_LOG = "server.log"
SERVER_LOG_OLD = "server.log.1"

HOME_MODE = 0o700


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of Steersman was told. `home` is absolute; port 0 means any free one.

    `user` is what ``~`` stands for in declarations.
    """

    home: Path
    user: Path = Path("/")
    port: int = PORT_DEFAULT

    @property
    def server_file(self) -> Path:
        return self.home / SERVER_FILE

    @property
    def server_log(self) -> Path:
        return self.home / SERVER_LOG


def read_settings(environ: Mapping[str, str], home: Path | None = None, port: int | None = None) -> Settings:
    """The settings of this process; arguments win over the environment. Raises HomeError."""
    user = environ.get("HOME", "")
    return Settings(
        home=_home(environ, home),
        user=Path(user) if user.startswith("/") else Path("/"),
        port=_port(environ) if port is None else port,
    )


def _home(environ: Mapping[str, str], home: Path | None) -> Path:
    if home is not None:
        chosen = home
    elif environ.get(ENV_HOME):
        chosen = Path(environ[ENV_HOME])
    elif environ.get("XDG_STATE_HOME", "").startswith("/"):
        chosen = Path(environ["XDG_STATE_HOME"], "steersman")
    elif environ.get("HOME", "").startswith("/"):
        chosen = Path(environ["HOME"], ".local", "state", "steersman")
    else:
        raise HomeError("no home is given and HOME is not set", hint=f"give --home, or set {ENV_HOME}")
    if "\0" in str(chosen):
        raise HomeError("the path of the home holds a NUL", hint="give another --home")
    return Path(os.path.abspath(chosen))  # noqa: PTH100 - Path.absolute keeps `..`, resolve follows links


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get(ENV_PORT, "")
    if not text:
        return PORT_DEFAULT
    if not (text.isascii() and text.isdigit() and int(text) <= PORT_MAX):
        raise HomeError(f"{ENV_PORT} is not a port: {text[:16]!r}", hint=f"use a number from 0 to {PORT_MAX}")
    return int(text)


def prepare_home(home: Path) -> None:
    """Make the home, or check the one there is. Raises HomeError."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=HOME_MODE, exist_ok=True)
    except OSError as error:
        raise HomeError(
            f"cannot make the home {home}: {error.strerror}", hint="choose another with --home"
        ) from error
    check_home(home)


def check_home(home: Path) -> None:
    """Refuse a home that is not a folder of this user alone. Raises HomeError."""
    try:
        status = home.stat()
    except OSError as error:
        raise HomeError(
            f"cannot read the home {home}: {error.strerror}", hint="choose another with --home"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise HomeError(f"the home {home} is not a folder", hint="choose another with --home")
    if status.st_uid != os.geteuid():
        raise HomeError(f"the home {home} belongs to another user", hint="choose another with --home")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise HomeError(
            f"the home {home} is open to other users (mode {mode:04o})",
            hint=f"chmod 700 {home}, if everything in it is yours; or choose another with --home",
        )
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise HomeError(f"the home {home} is not writable", hint=f"chmod 700 {home}")
    if os.statvfs(home).f_flag & os.ST_RDONLY:
        raise HomeError(
            f"the home {home} is on a file system mounted read-only", hint="choose another with --home"
        )
