"""The home's own authority: certificates for its gateway and for replicas that are reached over a network.

    <home>/authority.pem              the authority's key and certificate; made on first need, once
    <home>/gateway/replicas.pem       the gateway's key and certificate as a client of replicas
    <home>/gateway/replicas-ca.pem    the authority's certificate, which is all that the gateway trusts

All are readable by the owner only; the authority's key leaves its file for nothing but signing. A key and its
certificate share a file, so that a reader never has two that are no pair.

How long certificates hold. A replica's ends its worth with its run: the gateway dials only runs that it is
told of and demands the run's own name, and no name of a run is used twice. So its time need not be short to
be safe, and must be longer than any replica lives, for with one that ran out no gateway would connect anew:
REPLICA_DAYS. The gateway's is renewed when GATEWAY_RENEW_DAYS are left, and serves on for so long
without a control plane. Connections that stand are not touched by either. All begin a day early, for clocks
differ between machines.
"""

import datetime as dt
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from steersman.guard.files import FOLDER_MODE, create_once, read_private, write_whole
from steersman.model.errors import AccessError, HomeError
from steersman.ports import peers, run_dir
from steersman.ports.gateway import GATEWAY, PEERS_AUTHORITY_FILE, PEERS_FILE

AUTHORITY_NAME = "authority.pem"
AUTHORITY_DAYS = 365 * 20
REPLICA_DAYS = 365 * 5
GATEWAY_DAYS = 365
GATEWAY_RENEW_DAYS = 240
RETRY_S = 60.0
"""When the gateway's certificate could not be looked after, it is tried again so much later."""
EARLY = dt.timedelta(days=1)
PEM_BYTES_MAX = 64 * 1024

_PEM = serialization.Encoding.PEM


class Pair(NamedTuple):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> bytes:
        """Both, the key first."""
        return self.key_pem() + self.certificate.public_bytes(_PEM)

    def key_pem(self) -> bytes:
        """The key, not encrypted."""
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return self.key.private_bytes(_PEM, form, plain)


class Authority:
    """The authority of one home. Blocking, and quick."""

    def __init__(self, home: Path, home_id: str, now_ms: Callable[[], int]) -> None:
        self._home, self._identity, self._now_ms = home, peers.home_identity(home_id), now_ms
        self._due: dt.datetime | None = None

    def replica(self, run: str) -> tuple[tuple[str, str], ...]:
        """What the replica of a run gets among its secrets: (variable, PEM).

        Raises AccessError, HomeError.
        """
        authority = self._authority()
        name = peers.run_identity(self._identity, run)
        made = self._issue(authority, name, ExtendedKeyUsageOID.SERVER_AUTH, REPLICA_DAYS)
        return (
            (run_dir.ENV_REPLICA_CERT, made.certificate.public_bytes(_PEM).decode()),
            (run_dir.ENV_REPLICA_KEY, made.key_pem().decode()),
            (run_dir.ENV_REPLICA_CA, authority.certificate.public_bytes(_PEM).decode()),
        )

    def keep_gateway(self) -> None:
        """See to it that the gateway has a certificate that holds for long. Costs nothing while it has.

        Raises AccessError, HomeError.
        """
        now = self._now()
        if self._due is not None and now < self._due:
            return
        self._due = now + dt.timedelta(seconds=RETRY_S)
        authority = self._authority()
        folder = self._home / GATEWAY
        try:
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise HomeError(f"cannot make {folder}: {error.strerror}") from error
        trusted = authority.certificate.public_bytes(_PEM)
        if not _holds(folder / PEERS_AUTHORITY_FILE, trusted):
            write_whole(folder / PEERS_AUTHORITY_FILE, trusted)
        until = self._gateway_until(folder / PEERS_FILE, authority)
        margin = dt.timedelta(days=GATEWAY_RENEW_DAYS)
        if until is None or until - now < margin:
            name = peers.gateway_identity(self._identity)
            made = self._issue(authority, name, ExtendedKeyUsageOID.CLIENT_AUTH, GATEWAY_DAYS)
            write_whole(folder / PEERS_FILE, made.pem())
            until = made.certificate.not_valid_after_utc
        self._due = max(until - margin, self._due)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._now_ms() / 1000, dt.UTC)

    def _gateway_until(self, path: Path, authority: Pair) -> dt.datetime | None:
        """Until when the gateway's certificate holds; None when it has none that can be used."""
        try:
            found = _load(path)
        except AccessError:
            return None
        if found is None or found.certificate.not_valid_before_utc > self._now():
            return None
        try:
            found.certificate.verify_directly_issued_by(authority.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return None
        return found.certificate.not_valid_after_utc

    def _authority(self) -> Pair:
        path = self._home / AUTHORITY_NAME
        found = _load(path)
        if found is None:
            create_once(path, self._make_authority().pem())
            found = _load(path)
        if found is None:
            raise AccessError(f"{path} vanished while it was made", hint="look at who else uses this home")
        if not _is_authority(found.certificate, self._identity):
            raise AccessError(f"{path} is not of this home", hint=_hint(path))
        if found.certificate.not_valid_after_utc <= self._now():
            raise AccessError(f"the certificate in {path} has run out", hint=_hint(path))
        return found

    def _make_authority(self) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(key, "Steersman authority", self._identity, AUTHORITY_DAYS)
        builder = builder.issuer_name(_name("Steersman authority")).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        return Pair(builder.add_extension(_usage(signs=True), critical=True).sign(key, hashes.SHA256()), key)

    def _issue(self, authority: Pair, name: str, use: ObjectIdentifier, days: int) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = authority.certificate
        builder = self._builder(key, "Steersman", name, days, issuer.not_valid_after_utc)
        made = (
            builder.issuer_name(issuer.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
            )
            .sign(authority.key, hashes.SHA256())
        )
        return Pair(made, key)

    def _builder(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: str,
        uri: str,
        days: int,
        latest: dt.datetime | None = None,
    ) -> x509.CertificateBuilder:
        until = self._now() + dt.timedelta(days=days)
        names = [x509.UniformResourceIdentifier(uri)]
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now() - EARLY)
            .not_valid_after(until if latest is None else min(until, latest))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    """An authority signs certificates, all others a handshake."""
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _is_authority(certificate: x509.Certificate, uri: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return list(names) == [x509.UniformResourceIdentifier(uri)]


def _load(path: Path) -> Pair | None:
    """Key and certificate of a file; None when there is none. Raises AccessError for what is no pair."""
    data = read_private(path, PEM_BYTES_MAX)
    if data is None:
        return None
    try:
        key = serialization.load_pem_private_key(data, None)
        certificate = x509.load_pem_x509_certificate(data)
    except (ValueError, TypeError) as error:
        raise AccessError(f"{path} is damaged", hint=_hint(path)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise AccessError(f"{path} holds a key and a certificate that are no pair", hint=_hint(path))
    return Pair(certificate, key)


def _hint(path: Path) -> str:
    return f"remove {path}: it is made anew; replicas on other machines must then be started again"


def _holds(path: Path, data: bytes) -> bool:
    try:
        found = read_private(path, PEM_BYTES_MAX)
    except AccessError:
        return False
    return found is not None and hmac.compare_digest(found, data)
