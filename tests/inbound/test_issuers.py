"""Tokens of issuers whose public keys are fetched, signed by a library that isn't ours."""

from __future__ import annotations

import json
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gates
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from gates import Gate, command, wait
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

ISSUER = "https://keys.test/"


class Keys:
    """An issuer's key set over HTTP; may hang."""

    def __init__(self) -> None:
        self.kept: list = []
        self.asked = 0
        self.goes_on = threading.Event()
        self.goes_on.set()
        keys = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.asked += 1
                keys.goes_on.wait(30)
                body = json.dumps(KeySet(keys.kept).as_dict(private=False)).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks.json"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def keys():
    keys = Keys()
    yield keys
    keys.goes_on.set()
    keys.server.shutdown()


def token(algorithm: str, key, **claims: object) -> str:
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": "aion", "sub": "ann", "roles": ["reviewers"]}
    usual |= {"exp": now + 60, "nbf": now - 60}
    header = {"alg": algorithm, "kid": key.kid}
    return jwt.encode(header, usual | claims, key, algorithms=[algorithm])


def issuer(keys: Keys, algorithms: str) -> str:
    return (
        f"  - {{id: keys, issuer: '{ISSUER}', audience: aion, algorithms: [{algorithms}], "
        f"jwks: '{keys.url}', roles: {{reviewers: [approve]}}}}\n"
    )


def status(gate: Gate, bearer: str) -> int:
    return gate.send(command(), authorization=f"Bearer {bearer}").status


def made() -> dict:
    parameters = {"use": "sig"}
    return {
        "RS256": RSAKey.generate_key(2048, parameters, auto_kid=True),
        "ES256": ECKey.generate_key("P-256", parameters, auto_kid=True),
        "EdDSA": OKPKey.generate_key("Ed25519", parameters, auto_kid=True),
    }


def test_each_algorithm_by_keys_that_are_fetched_and_changed(gate: Gate, keys: Keys):
    first, second = made(), made()
    keys.kept = list(first.values())
    gate.write_policy(more=issuer(keys, "RS256, ES256, EdDSA"))
    gate.start()
    for algorithm, key in first.items():
        assert status(gate, token(algorithm, key)) == 202, algorithm
        assert status(gate, token(algorithm, second[algorithm])) == 401, algorithm
    rsa = first["RS256"]
    assert status(gate, token("PS256", rsa)) == 401, "an algorithm that isn't allowed"
    assert status(gate, token("RS256", rsa, aud="others")) == 401
    assert status(gate, token("RS256", rsa, exp=int(time.time()) - 600)) == 401
    asked = keys.asked
    for _ in range(50):
        assert status(gate, token("RS256", second["RS256"])) == 401
    assert keys.asked == asked, "unknown keys don't have the set fetched each time"

    # A policy that is read again has the keys fetched again.
    keys.kept = list(second.values())
    gate.gateway.process.send_signal(signal.SIGHUP)
    new = token("ES256", second["ES256"])
    wait(lambda: status(gate, new) == 202, "the new keys hold", 10)
    assert status(gate, token("ES256", first["ES256"])) == 401, "and the old ones don't"


def test_a_public_key_is_no_secret(gate: Gate, keys: Keys):
    """As somebody would forge a token who has the issuer's public key, as everybody has: HS256 by what it looks like
    in a file."""
    rsa = made()["RS256"]
    keys.kept = [rsa]
    gate.write_policy(more=issuer(keys, "RS256"))
    gate.start()
    assert status(gate, token("RS256", rsa)) == 202, "the key itself is the issuer's"
    public = rsa.public_key
    text = json.dumps(KeySet([rsa]).as_dict(private=False)["keys"][0])
    secrets = [text.encode(), rsa.as_dict(private=False)["n"].encode()]
    for form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1):
        pem = public.public_bytes(Encoding.PEM, form)
        secrets += [pem, pem.strip(), pem.replace(b"\n", b"\r\n")]
        secrets += [public.public_bytes(Encoding.DER, form)]
    for secret in secrets:
        for header in ({"alg": "HS256", "kid": rsa.kid}, {"alg": "HS256"}):
            forged = gates.token(header, secret, iss=ISSUER)
            assert status(gate, forged) == 401, (header, secret[:30])
            # Nor does it pass as a token of the issuer that has a secret.
            forged = gates.token(header, secret)
            assert status(gate, forged) == 401, (header, secret[:30])
    own = gates.token({"alg": "HS256", "kid": rsa.kid})
    assert status(gate, own) == 202, "by that issuer's own secret it does"


def test_a_key_set_that_does_not_answer_holds_up_no_other_change(
    gate: Gate, keys: Keys
):
    known = made()
    keys.kept = list(known.values())
    gate.write_policy(more=issuer(keys, "EdDSA"))
    gate.start()
    bearer = token("EdDSA", known["EdDSA"])
    assert status(gate, bearer) == 202
    keys.goes_on.clear()
    gate.principal("newcomer", "approve")
    gate.write_policy(more=issuer(keys, "EdDSA"))
    began = time.monotonic()
    gate.gateway.process.send_signal(signal.SIGHUP)
    wait(lambda: gate.send(command(), "newcomer").status == 202, "it is known", 10)
    assert time.monotonic() - began < 4, "the set has five seconds to answer"
    assert status(gate, bearer) == 202, "what was fetched holds"
