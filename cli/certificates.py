"""A throw-away certificate authority, so that SeaweedFS's inner (gRPC) ports talk to SeaweedFS alone."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.x509.oid import NameOID

from cli.ports import LOOPBACK

VALID_DAYS = 3650


def mutual_tls(host: str = LOOPBACK) -> dict[str, str]:
    """`ca.crt`, `node.crt` and `node.key`, as PEM; the authority's own key is forgotten at once."""
    authority_key = generate_private_key(SECP256R1())
    authority = _sign("ca", authority_key, host, issuer=None, issuer_key=authority_key)
    node_key = generate_private_key(SECP256R1())
    node = _sign("node", node_key, host, issuer=authority, issuer_key=authority_key)
    return {"ca.crt": _pem(authority), "node.crt": _pem(node), "node.key": _key_pem(node_key)}


def _sign(
    name: str,
    key: EllipticCurvePrivateKey,
    host: str,
    *,
    issuer: x509.Certificate | None,
    issuer_key: EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(name), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(host))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
