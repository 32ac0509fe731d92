"""A backup that only a passphrase opens: made and read piece by piece, whatever its size.

The form: MAGIC, one byte with the binary logarithm of scrypt's N, 16 bytes of salt, then pieces: up
to 64 KiB of the backup each, by AES-256-GCM with its tag of 16 bytes behind. The nonce is the
piece's number (11 bytes, big-endian) and a byte that is 1 for the last piece, 0 for all others; the
head is authenticated with each. So nothing can be changed, left out, put elsewhere or cut off
without showing. The key is scrypt's (r = 8, p = 1) of the passphrase, of another salt each time.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from slapos.master.backup.form import BackupUnusable, NotOpened
from slapos.master.secret_file import read_private
from slapos.system.identifier import Identifiers

MAGIC = b"slapos sealed backup 1\n"
SALT = 16
TAG = 16
PIECE = 64 * 1024
#: 128 MB and about half a second for each guess.
COST = 17
#: A file that claims more would have us take all memory there is.
HIGHEST_COST = 20
HEAD = len(MAGIC) + 1 + SALT
SHORTEST = 12
_SALT_CHARACTERS = 40


def read_passphrase(path: Path) -> str:
    """Return the passphrase in a file that only its owner reads. Raises SecretUnusable."""
    return read_private(path, "passphrase file", SHORTEST).decode(errors="surrogateescape")


def is_sealed(path: Path) -> bool:
    """Return whether a backup needs a passphrase. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class Sealing(io.RawIOBase):
    """Takes a backup and writes it sealed; it is whole once this is closed."""

    def __init__(
        self, file: IO[bytes], passphrase: str, identifiers: Identifiers, cost: int = COST
    ) -> None:
        salt = hashlib.sha256(identifiers.token(_SALT_CHARACTERS).encode()).digest()[:SALT]
        self._file, self._head = file, MAGIC + bytes([cost]) + salt
        self._cipher = _cipher(passphrase, self._head)
        self._waiting, self._number = bytearray(), 0
        file.write(self._head)

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def write(self, data: object) -> int:
        """Take a part."""
        part = bytes(data)  # type: ignore[call-overload]
        self._waiting += part
        while len(self._waiting) > PIECE:  # the last one is known when there is no more
            self._put(bytes(self._waiting[:PIECE]), is_last=False)
            del self._waiting[:PIECE]
        return len(part)

    def end(self) -> None:
        """Write the last piece: without it, nothing of it is taken back."""
        self._put(bytes(self._waiting), is_last=True)
        self._waiting.clear()

    def _put(self, piece: bytes, *, is_last: bool) -> None:
        nonce = _nonce(self._number, is_last=is_last)
        self._file.write(self._cipher.encrypt(nonce, piece, self._head))
        self._number += 1


class Opening(io.RawIOBase):
    """Gives what is in a sealed backup; raises NotOpened for a wrong passphrase."""

    def __init__(self, file: IO[bytes], passphrase: str) -> None:
        self._file, self._head = file, file.read(HEAD)
        if len(self._head) < HEAD or self._head[len(MAGIC)] > HIGHEST_COST:
            raise NotOpened("the backup is damaged: it does not begin as it should")
        self._cipher = _cipher(passphrase, self._head)
        self._number, self._open, self._is_over = 0, b"", False
        self._next = file.read(PIECE + TAG)

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: object) -> int:
        """Give a part, nothing at the end."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._open and not self._is_over:
            self._open = self._take()
        part = self._open[: len(view)]
        view[: len(part)] = part
        self._open = self._open[len(part) :]
        return len(part)

    def _take(self) -> bytes:
        piece, self._next = self._next, self._file.read(PIECE + TAG)
        self._is_over = not self._next
        nonce = _nonce(self._number, is_last=self._is_over)
        try:
            found = self._cipher.decrypt(nonce, piece, self._head)
        except InvalidTag:
            raise NotOpened(
                "the backup cannot be opened: the passphrase is another one, or the backup is "
                "damaged"
                if self._number == 0
                else "the backup is damaged, or was cut off"
            ) from None
        self._number += 1
        return found


def opened(path: Path, passphrase: str | None) -> IO[bytes]:
    """Return a backup's file as it was before it was sealed. Raises BackupUnusable, OSError."""
    sealed = is_sealed(path)
    if sealed and passphrase is None:
        raise BackupUnusable("the backup is encrypted: give its passphrase, by --passphrase-file")
    if not sealed and passphrase is not None:
        # Who expects a sealed one is not to be given anything that somebody has put there.
        raise BackupUnusable(
            "the backup is not encrypted: leave the passphrase out if it may be so"
        )
    file = path.open("rb")
    try:
        return file if passphrase is None else io.BufferedReader(_Closing(file, passphrase))
    except BaseException:
        file.close()
        raise


class _Closing(Opening):
    """Closes the file behind it, too."""

    def close(self) -> None:
        self._file.close()
        super().close()


def _cipher(passphrase: str, head: bytes) -> AESGCM:
    derive: Callable[[bytes], bytes] = Scrypt(
        salt=head[-SALT:], length=32, n=2 ** head[len(MAGIC)], r=8, p=1
    ).derive
    return AESGCM(derive(passphrase.encode(errors="surrogateescape")))


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])
