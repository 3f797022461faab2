"""A certificate authority of the tests' own."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """Writes certificates into a folder, in files that servers and clients take."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.ca = folder / f"{name}.pem"
        rule = x509.BasicConstraints(ca=True, path_length=0)
        unsigned = self.unsigned(self.subject, self.key.public_key(), rule, DAY)
        self.write(self.ca, unsigned.sign(self.key, hashes.SHA256()))

    def unsigned(self, subject, public_key, rule, until) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + until)
            .add_extension(rule, critical=True)
        )

    def certificate(
        self, name: str = "localhost", until: datetime.timedelta = DAY
    ) -> tuple[Path, Path]:
        """A certificate for a name or an address, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        rule = x509.BasicConstraints(ca=False, path_length=None)
        try:
            known: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            known = x509.DNSName(name)
        unsigned = self.unsigned(subject, key.public_key(), rule, until)
        unsigned = unsigned.add_extension(x509.SubjectAlternativeName([known]), False)
        certificate, secret = (
            self.folder / f"{self.name}-{name}.{kind}" for kind in ("pem", "key")
        )
        self.write(certificate, unsigned.sign(self.key, hashes.SHA256()))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, secret

    def write(self, path: Path, certificate: x509.Certificate) -> None:
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, name: str = "localhost", **more: object) -> ssl.SSLContext:
        """What a server of that name shows."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate(name, **more))
        return context
