"""Backups that a passphrase opens: whole, or not at all."""

import gzip
import io
from functools import partial
from pathlib import Path

import pytest

from slapos.command.main import main
from slapos.master.backup.backing_up import back_up
from slapos.master.backup.form import BackupUnusable
from slapos.master.backup.restoring import read_about, restore
from slapos.master.backup.sealing import HEAD, MAGIC, PIECE, TAG, Opening, Sealing
from slapos.master.database import Database, open_database
from slapos.master.migrations.schema import metadata
from slapos.master.secret_file import make_secret_file
from slapos.master.settings import database_url
from slapos.system.identifier import SystemIdentifiers
from tests.fakes import FakeClock
from tests.integration.master.every_table import fill, rows_of
from tests.integration.master.test_master_commands import configured

PASSPHRASE = "a lantern behind the third door"
#: A sixteenth of a millisecond and not half a second: what counts is the form.
SEAL = partial(Sealing, passphrase=PASSPHRASE, identifiers=SystemIdentifiers(), cost=4)


def sealed(content: bytes) -> bytes:
    file = io.BytesIO()
    sealing = SEAL(file)
    for start in range(0, len(content), 1000):
        sealing.write(content[start : start + 1000])
    sealing.end()
    return file.getvalue()


def opened(content: bytes, passphrase: str = PASSPHRASE) -> bytes:
    return io.BufferedReader(Opening(io.BytesIO(content), passphrase)).read()


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_what_is_sealed_is_opened(size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    assert opened(sealed(content)) == content


def test_the_same_is_sealed_in_another_way_each_time() -> None:
    assert sealed(b"x" * 100)[HEAD:] != sealed(b"x" * 100)[HEAD:]


def is_taken(content: bytes) -> bool:
    try:
        opened(content)
    except BackupUnusable:
        return False
    return True


def test_what_is_changed_moved_or_cut_off_is_not_taken_back() -> None:
    whole = sealed(b"x" * (3 * PIECE + 10))
    size = PIECE + TAG
    head, pieces = whole[:HEAD], [whole[HEAD + n * size : HEAD + (n + 1) * size] for n in range(4)]
    assert head + b"".join(pieces) == whole
    wrong = {
        "another bit": whole[: HEAD + 7] + bytes([whole[HEAD + 7] ^ 1]) + whole[HEAD + 8 :],
        "cut off at a piece": whole[: HEAD + 3 * size],
        "cut off in a piece": whole[:-1],
        "a piece more": whole + pieces[3],
        "a piece less": head + pieces[0] + pieces[2] + pieces[3],
        "another order": head + pieces[1] + pieces[0] + pieces[2] + pieces[3],
        "another cost": whole[: len(MAGIC)] + bytes([5]) + whole[len(MAGIC) + 1 :],
        "all memory there is": whole[: len(MAGIC)] + bytes([60]) + whole[len(MAGIC) + 1 :],
        "nothing but a head": head,
        "half a head": head[:-1],
    }
    for name, content in wrong.items():
        assert not is_taken(content), name
    with pytest.raises(BackupUnusable, match="passphrase is another one"):
        opened(whole, "another passphrase")


def test_a_sealed_backup_is_taken_back_with_its_passphrase_only(
    database: Database, tmp_path: Path
) -> None:
    with database.engine.begin() as connection:
        fill(connection, metadata)
    path, secret = tmp_path / "master.backup", "s" * 64
    back_up(database, path, FakeClock(), secret, SEAL)
    content = path.read_bytes()
    assert content.startswith(MAGIC)
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret.encode() not in content
    with pytest.raises(OSError, match="Not a gzipped file"):
        gzip.decompress(content)
    target = open_database(database_url(str(tmp_path / "target.db")), threads=1)
    for passphrase, reason in ((None, "is encrypted"), ("another one", "passphrase is another")):
        with pytest.raises(BackupUnusable, match=reason):
            restore(target, path, SystemIdentifiers(), passphrase=passphrase)
    restore(target, path, SystemIdentifiers(), passphrase=PASSPHRASE)
    with database.engine.connect() as before, target.engine.connect() as after:
        table = metadata.tables["persons"]
        assert rows_of(after, table) == rows_of(before, table)
    target.close()


def test_who_expects_a_sealed_one_is_not_given_another(database: Database, tmp_path: Path) -> None:
    back_up(database, tmp_path / "plain", FakeClock(), None)
    with pytest.raises(BackupUnusable, match="is not encrypted"):
        read_about(tmp_path / "plain", PASSPHRASE)


@pytest.mark.parametrize("database_uri", ["sqlite"], indirect=True)
def test_by_the_commands(
    database: Database, database_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = str(configured(tmp_path, database_uri))
    (tmp_path / "slapos-master").mkdir()
    make_secret_file(tmp_path / "slapos-master" / "secret", SystemIdentifiers())
    passphrase, path = tmp_path / "passphrase", tmp_path / "master.backup"
    words = ["--cfg", cfg, "--passphrase-file", str(passphrase), str(path)]
    passphrase.write_text("short")
    passphrase.chmod(0o600)
    assert main(["master", "backup", *words]) == 1
    assert "at least 12 are needed" in capsys.readouterr().err
    passphrase.write_text(f"{PASSPHRASE}\n")
    passphrase.chmod(0o644)
    assert main(["master", "backup", *words]) == 1
    assert "others than its owner may read" in capsys.readouterr().err
    passphrase.chmod(0o600)
    assert main(["master", "backup", *words]) == 0
    assert path.read_bytes().startswith(MAGIC)
    assert main(["master", "restore", "--force", "--cfg", cfg, str(path)]) == 1
    assert "give its passphrase" in capsys.readouterr().err
    database.close()
    assert main(["master", "restore", "--force", *words]) == 0
