"""Small secrets as they lie in the database: encrypted with the key in the master's secret file."""

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from slapos.master.secret_file import SecretUnusable


class SecretBox:
    """Seals and opens texts; `purpose` keeps what is sealed for one thing from being another."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        # A secret of full entropy needs no slow derivation (RFC 5869).
        key = HKDF(hashes.SHA256(), 32, salt=None, info=f"slapos {purpose}".encode()).derive(secret)
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, text: str) -> str:
        """Return the text, encrypted."""
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Return the text again. Raises SecretUnusable when it was sealed with another secret."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise SecretUnusable(
                "what is encrypted in the database was not with this secret file: copy it from "
                "another machine of this master, or from a backup"
            ) from error
