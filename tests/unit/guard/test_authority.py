"""The home's authority: what it issues, to whom, for how long, and what it does with files not its own."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from steersman.guard import authority as module
from steersman.guard.authority import (
    AUTHORITY_DAYS,
    AUTHORITY_NAME,
    GATEWAY_DAYS,
    GATEWAY_RENEW_DAYS,
    REPLICA_DAYS,
    RETRY_S,
    Authority,
)
from steersman.model.errors import AccessError, HomeError
from steersman.ports import run_dir

HOME_ID = "00ff00ff00ff00ff"
DAY_MS = 86_400_000
BEGIN_MS = 1_800_000_000_000


class Days:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_ms = BEGIN_MS

    def pass_by(self, days: float) -> None:
        self.now_ms += round(days * DAY_MS)


def made(home: Path, clock: Days | None = None, home_id: str = HOME_ID) -> Authority:
    clock = clock or Days()
    return Authority(home, home_id, lambda: clock.now_ms)


def issued(texts: tuple[tuple[str, str], ...]) -> tuple[x509.Certificate, x509.Certificate]:
    """The replica's certificate and its authority's."""
    found = dict(texts)
    return tuple(  # type: ignore[return-value] # of two
        x509.load_pem_x509_certificate(found[name].encode())
        for name in (run_dir.ENV_REPLICA_CERT, run_dir.ENV_REPLICA_CA)
    )


def gateway_of(home: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((home / "gateway" / "replicas.pem").read_bytes())


def names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert all(isinstance(name, x509.UniformResourceIdentifier) for name in found)
    return [str(name.value) for name in found]


def uses(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert found.critical
    return [str(use._name) for use in found.value]  # the library's only word for it


def days_left(certificate: x509.Certificate, clock: Days) -> float:
    return (certificate.not_valid_after_utc.timestamp() * 1000 - clock.now_ms) / DAY_MS


def test_a_replica_is_named_by_home_and_run_and_is_a_server_only(tmp_path: Path) -> None:
    clock = Days()
    certificate, authority = issued(made(tmp_path, clock).replica("digits.1.9"))
    assert names(certificate) == [f"spiffe://{HOME_ID}/run/digits.1.9"]
    assert names(authority) == [f"spiffe://{HOME_ID}"]
    assert uses(certificate) == ["serverAuth"]
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    certificate.verify_directly_issued_by(authority)
    basics = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basics.critical, basics.value.ca) == (True, False)
    assert days_left(certificate, clock) == pytest.approx(REPLICA_DAYS, abs=0.01)
    assert certificate.not_valid_before_utc.timestamp() * 1000 <= clock.now_ms - DAY_MS + 1_000


def test_the_authority_signs_leaves_only_and_is_made_once_for_its_owner(tmp_path: Path) -> None:
    _, first = issued(made(tmp_path).replica("a.1"))
    path = tmp_path / AUTHORITY_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    basics = first.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (basics.ca, basics.path_length) == (True, 0)
    assert issued(made(tmp_path).replica("a.2"))[1] == first


def test_two_replicas_share_no_key(tmp_path: Path) -> None:
    authority = made(tmp_path)
    first, second = (dict(authority.replica("a.1"))[run_dir.ENV_REPLICA_KEY] for _ in range(2))
    assert first != second


def test_the_gateway_is_a_client_only_and_its_files_are_its_owner_s(tmp_path: Path) -> None:
    clock = Days()
    made(tmp_path, clock).keep_gateway()
    certificate = gateway_of(tmp_path)
    assert names(certificate) == [f"spiffe://{HOME_ID}/gateway"]
    assert uses(certificate) == ["clientAuth"]
    assert days_left(certificate, clock) == pytest.approx(GATEWAY_DAYS, abs=0.01)
    for path in (tmp_path / "gateway").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_gateway_s_certificate_is_renewed_in_time_and_not_before(tmp_path: Path) -> None:
    clock = Days()
    authority = made(tmp_path, clock)
    authority.keep_gateway()
    first = gateway_of(tmp_path)
    clock.pass_by(GATEWAY_DAYS - GATEWAY_RENEW_DAYS - 1)
    authority.keep_gateway()
    made(tmp_path, clock).keep_gateway()  # another life looks at the file
    assert gateway_of(tmp_path) == first
    clock.pass_by(2)
    authority.keep_gateway()
    assert gateway_of(tmp_path) != first
    assert days_left(gateway_of(tmp_path), clock) == pytest.approx(GATEWAY_DAYS, abs=0.01)


def test_looking_after_it_costs_nothing_while_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = made(tmp_path)
    authority.keep_gateway()
    monkeypatch.setattr(module, "read_private", lambda *_: pytest.fail("it looked at the disk"))
    authority.keep_gateway()


@pytest.mark.parametrize("what", ["gone", "damaged", "no pair", "of another authority", "open to others"])
def test_a_gateway_s_certificate_that_is_no_use_is_made_anew(tmp_path: Path, what: str) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    for each in (home, other):
        each.mkdir()
        made(each).keep_gateway()
    path, first = home / "gateway" / "replicas.pem", gateway_of(home)
    strange = (other / "gateway" / "replicas.pem").read_bytes()
    match what:
        case "gone":
            path.unlink()
        case "damaged":
            path.write_bytes(b"x")
        case "no pair":
            own = path.read_bytes()
            mark = b"-----BEGIN CERTIFICATE"
            path.write_bytes(own[: own.index(mark)] + strange[strange.index(mark) :])
        case "of another authority":
            path.write_bytes(strange)
        case _:
            path.chmod(0o644)
    made(home).keep_gateway()
    assert gateway_of(home) != first
    assert names(gateway_of(home)) == [f"spiffe://{HOME_ID}/gateway"]
    gateway_of(home).verify_directly_issued_by(issued(made(home).replica("a.1"))[1])


def test_an_altered_authority_file_of_the_gateway_is_put_right(tmp_path: Path) -> None:
    made(tmp_path).keep_gateway()
    path = tmp_path / "gateway" / "replicas-ca.pem"
    good = path.read_bytes()
    path.write_bytes(b"x")
    made(tmp_path).keep_gateway()
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    "what", ["damaged", "of another home", "without a name", "run out", "open to others"]
)
def test_an_authority_that_cannot_be_used_is_refused_with_what_to_do(tmp_path: Path, what: str) -> None:
    clock = Days()
    home, path = tmp_path / "home", tmp_path / "home" / AUTHORITY_NAME
    home.mkdir()
    made(home, clock, "f" * 16 if what == "of another home" else HOME_ID).replica("a.1")
    match what:
        case "damaged":
            path.write_bytes(b"x")
        case "without a name":
            path.write_bytes(nameless())
        case "run out":
            clock.pass_by(AUTHORITY_DAYS + 1)
        case "open to others":
            path.chmod(0o640)
    for act in (lambda: made(home, clock).replica("a.1"), made(home, clock).keep_gateway):
        with pytest.raises(AccessError) as caught:
            act()
        assert str(path) in caught.value.message
        assert caught.value.hint


def nameless() -> bytes:
    """A key and a certificate of nobody."""
    key = ec.generate_private_key(ec.SECP256R1())
    pair = Authority(Path(), HOME_ID, lambda: BEGIN_MS)._make_authority()
    bare = (
        x509.CertificateBuilder()
        .subject_name(pair.certificate.subject)
        .issuer_name(pair.certificate.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(pair.certificate.not_valid_before_utc)
        .not_valid_after(pair.certificate.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    return module.Pair(bare, key).pem()


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    clock = Days()
    made(tmp_path, clock).replica("a.1")
    clock.pass_by(AUTHORITY_DAYS - 10)
    certificate, authority = issued(made(tmp_path, clock).replica("a.2"))
    assert certificate.not_valid_after_utc == authority.not_valid_after_utc


def test_a_failure_is_told_and_tried_again_a_little_later(tmp_path: Path) -> None:
    clock = Days()
    (tmp_path / "gateway").write_text("in the way")
    authority = made(tmp_path, clock)
    with pytest.raises(HomeError, match="gateway"):
        authority.keep_gateway()
    (tmp_path / "gateway").unlink()
    authority.keep_gateway()
    assert not (tmp_path / "gateway").exists()
    clock.now_ms += round(RETRY_S * 1000) + 1
    authority.keep_gateway()
    assert gateway_of(tmp_path)
