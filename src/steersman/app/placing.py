"""What declarations name on this machine: folders and files, made absolute, looked at, and named by digest.

Theory of operation. The parser keeps a path as it was written. Here it is resolved, against the folder of the
document it stands in or against the workdir, and what it names must be there. A workdir and a model file are
part of a declaration with all that is in them: their digests are taken here, so that an edited script or a
new model is a change like any other. Each is read once for a submission, however many name it.

A virtual environment is not copied with a workdir, so a callable's interpreter stays where it is: by its
absolute path, which is not followed, for an interpreter knows its environment by the name it is called by.
"""

import os
import socket
import ssl
import stat
from collections.abc import MutableMapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from steersman.app.model_files import model_digest
from steersman.hosting.folders import workdir_digest
from steersman.model.errors import DriverError, SpecError
from steersman.model.service import CallableModel, Gateway, OnnxModel, Service
from steersman.model.workload import Workload
from steersman.spec.parse import Origin, Parsed

WORKDIR = "workdir"


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What the paths of one document start from. `digests` holds those already taken, by path."""

    folder: Path
    home: Path
    user: Path
    digests: MutableMapping[Path, str]


def placed(parsed: Parsed, base: Base) -> Parsed:
    """What a document declares with its paths absolute and their content named. Raises SpecError."""
    workloads = tuple(
        _job(workload, origin, base)
        for workload, origin in zip(parsed.workloads, parsed.origins, strict=True)
    )
    services = tuple(
        _service(service, origin, base)
        for service, origin in zip(parsed.services, parsed.service_origins, strict=True)
    )
    warnings = parsed.warnings
    gateway, origin = parsed.gateway, parsed.gateway_origin
    if gateway is not None and origin is not None:
        gateway = _gateway(gateway, origin, base)
        warnings = (*warnings, *_loose_key(gateway, origin))
    return replace(parsed, workloads=workloads, services=services, gateway=gateway, warnings=warnings)


def _job(workload: Workload, origin: Origin, base: Base) -> Workload:
    text = workload.body.workdir
    if text is None:
        return workload
    path = _workdir(text, origin, base)
    body = replace(workload.body, workdir=str(path), workdir_digest=_files(path, origin, base))
    return replace(workload, body=body)


def _service(service: Service, origin: Origin, base: Base) -> Service:
    text = service.workdir
    if text is None and isinstance(service.model, CallableModel):
        text = "."  # its module is somewhere: beside the document, when nobody says where
    if text is not None:
        path = _workdir(text, origin, base)
        service = replace(service, workdir=str(path), workdir_digest=_files(path, origin, base))
    start = base.folder if service.workdir is None else Path(service.workdir)
    return replace(service, model=_model(service.model, start, origin, base))


# Models.


def _model(
    model: OnnxModel | CallableModel, start: Path, origin: Origin, base: Base
) -> OnnxModel | CallableModel:
    if isinstance(model, CallableModel):
        return replace(model, python=_python(model.python, start, origin, base))
    if model.path is None:
        return model
    path = _absolute(model.path, start, base)
    try:
        digest = base.digests.get(path) or model_digest(path)
    except SpecError as error:
        raise _wrong("model.onnx", origin, error.message, error.hint) from error
    base.digests[path] = digest
    return replace(model, path=str(path), digest=digest)


def _python(text: str | None, start: Path, origin: Origin, base: Base) -> str | None:
    """The interpreter; a bare name is left, to be looked for where the replica runs."""
    if text is None or "/" not in text:
        return text
    path = _absolute(text, start, base)
    mode = _mode(path)
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK):
        what = "is not a program" if mode else "does not exist"
        hint = "it is relative to `workdir`, as .venv/bin/python"
        raise _wrong("model.python", origin, f"the interpreter {str(path)!r} {what}", hint)
    return str(path)


# Workdirs.


def _workdir(text: str, origin: Origin, base: Base) -> Path:
    """The workdir as an absolute path of a folder that is there."""
    path = _absolute(text, base.folder, base)
    mode = _mode(path)
    if not stat.S_ISDIR(mode):
        what = "is not a folder" if mode else "does not exist"
        raise _wrong(
            WORKDIR, origin, f"the workdir {str(path)!r} {what}", "it is relative to the file's folder"
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise _wrong(WORKDIR, origin, f"the workdir {str(path)!r} cannot be read", "check its mode")
    if base.home.resolve().is_relative_to(path.resolve()):
        raise _wrong(
            WORKDIR,
            origin,
            f"the workdir {str(path)!r} contains Steersman's home {base.home}",
            "give it a `workdir` of its own, or choose another home with --home",
        )
    return path


def _files(path: Path, origin: Origin, base: Base) -> str:
    """The digest of what is in a workdir."""
    if path not in base.digests:
        try:
            base.digests[path] = workdir_digest(path)
        except DriverError as error:
            raise _wrong(WORKDIR, origin, error.message, error.hint) from error
        except OSError as error:
            what = f"{error.filename!r} in the workdir cannot be read: {error.strerror}"
            raise _wrong(WORKDIR, origin, what, "check its mode, or keep it out of the workdir") from error
    return base.digests[path]


# The gateway.


def _gateway(gateway: Gateway, origin: Origin, base: Base) -> Gateway:
    _check_address(gateway, origin)
    if gateway.certificate is None or gateway.private_key is None:
        return gateway
    certificate = _pem(gateway.certificate, "tls.certificate", origin, base)
    private_key = _pem(gateway.private_key, "tls.private_key", origin, base)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, private_key, password=str)  # an empty one: nobody is asked
    except (ssl.SSLError, ValueError) as error:
        what = f"{certificate!r} and {private_key!r} are no certificate and its key"
        hint = "give a PEM certificate, with its chain, and the key that it was made for, without a password"
        raise _wrong("tls", origin, f"{what}: {error}", hint) from error
    return replace(gateway, certificate=certificate, private_key=private_key)


def _check_address(gateway: Gateway, origin: Origin) -> None:
    """Refuse an address that this machine does not have; whether the port is free is for the gateway."""
    family = socket.AF_INET6 if ":" in gateway.address else socket.AF_INET
    try:
        with socket.socket(family) as tried:
            tried.bind((gateway.address, 0))
    except OSError as error:
        what = f"this machine cannot listen on {gateway.address}: {error.strerror}"
        raise _wrong("address", origin, what, "give one of its own addresses, or 0.0.0.0 for all") from error


def _pem(text: str, path: str, origin: Origin, base: Base) -> str:
    """A file that can be read, by its absolute path."""
    file = _absolute(text, base.folder, base)
    mode = _mode(file)
    if not stat.S_ISREG(mode) or not os.access(file, os.R_OK):
        what = "is not a file that can be read" if mode else "does not exist"
        raise _wrong(path, origin, f"{str(file)!r} {what}", "give a PEM file, relative to the file's folder")
    return str(file)


def _loose_key(gateway: Gateway, origin: Origin) -> tuple[str, ...]:
    """A warning about a private key that others may read."""
    mode = 0 if gateway.private_key is None else _mode(Path(gateway.private_key))
    if not mode & 0o077:
        return ()
    shown = f"{stat.S_IMODE(mode):04o}"
    path = "tls.private_key"
    place = f"{origin.source}:{origin.line_of(path)}: {path}"
    return (f"{place}: others on this machine may use it (mode {shown}); chmod 600 it",)


# Paths.


def _absolute(text: str, start: Path, base: Base) -> Path:
    first, _, rest = text.partition("/")
    path = base.user / rest if first == "~" else start / text
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps `..`, resolve follows links


def _mode(path: Path) -> int:
    """What stands there, links followed, and who may use it; 0 when nothing can be seen there."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _wrong(path: str, origin: Origin, message: str, hint: str) -> SpecError:
    return SpecError(message, hint=hint, source=origin.source, line=origin.line_of(path), path=path)
