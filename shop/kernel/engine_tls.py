"""How we prove to Temporal who we are, and it to us: TLS, and mutual TLS with a certificate of our own."""

from __future__ import annotations

from pathlib import Path

from temporalio.service import TLSConfig


class TLSInvalid(ValueError):
    """The settings do not fit together; the message is a sentence for people."""


def tls_config(on: bool, ca: str, cert: str, key: str) -> TLSConfig | bool:
    """What Temporal's client takes. `ca`, `cert` and `key` are PEM texts or paths of PEM files; raises `TLSInvalid`.

    `ca` is the authority that has signed the server's certificate; without it, the system's own are trusted.
    """
    if not on:
        if ca or cert or key:
            raise TLSInvalid(
                "TEMPORAL_TLS is off, but a certificate or key for it is set. Remove one of them."
            )
        return False
    if bool(cert) != bool(key):
        raise TLSInvalid("TEMPORAL_TLS_CERT and TEMPORAL_TLS_KEY belong together; set both or none.")
    return TLSConfig(
        server_root_ca_cert=_pem("TEMPORAL_TLS_CA", ca),
        client_cert=_pem("TEMPORAL_TLS_CERT", cert),
        client_private_key=_pem("TEMPORAL_TLS_KEY", key),
    )


def _pem(name: str, text: str) -> bytes | None:
    if not text:
        return None
    content = text.encode()
    if not text.lstrip().startswith("-----BEGIN "):
        try:
            content = Path(text).read_bytes()
        except OSError as error:
            # The value is not repeated: it may be a key that was pasted in a wrong form.
            raise TLSInvalid(
                f"{name} is neither a PEM text nor a file that can be read ({error.strerror})."
            ) from None
    if not content.lstrip().startswith(b"-----BEGIN "):
        raise TLSInvalid(f"The file that {name} names does not hold a PEM text.")
    return content
