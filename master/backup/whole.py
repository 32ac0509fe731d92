"""A master put back as a whole: its database and its secret file."""

from pathlib import Path

from slapos.master.backup.form import BackupUnusable
from slapos.master.backup.restoring import Restored, read_about, restore
from slapos.master.database import open_database
from slapos.master.identity.caller import SYSTEM
from slapos.master.secret_file import read_secret
from slapos.master.settings import Settings
from slapos.system.files import write_if_changed
from slapos.system.identifier import Identifiers, SystemIdentifiers


def restore_all(
    settings: Settings,
    path: Path,
    identifiers: Identifiers | None = None,
    *,
    replaces: bool = False,
    passphrase: str | None = None,
) -> Restored:
    """Restore a backup where the settings say; with `replaces`, in place of what is there.

    The secret comes first: a database whose secret is lost is of no use. Raises BackupUnusable,
    InUse, DatabaseUnusable, SecretUnusable, OSError.
    """
    assert settings.data_directory is not None
    settings.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = read_about(path, passphrase).get("secret")
    _check_secret(settings, secret, replaces=replaces)
    database = open_database(settings.database_url, threads=1, caller=SYSTEM)
    try:
        done = restore(
            database,
            path,
            identifiers or SystemIdentifiers(),
            replaces=replaces,
            passphrase=passphrase,
            before_commit=lambda: _put_secret(settings, secret),
        )
    finally:
        database.close()
    return done


def _check_secret(settings: Settings, secret: str | None, *, replaces: bool) -> None:
    assert settings.secret_file is not None
    if not settings.secret_file.exists():
        if secret is None:
            raise BackupUnusable(
                f"the backup is without the secret, and there is no {settings.secret_file}: put "
                "the secret file there that the master had, and restore again"
            )
        return
    is_another = secret is not None and read_secret(settings.secret_file).decode() != secret
    if is_another and not replaces:
        raise BackupUnusable(
            f"{settings.secret_file} is another secret than the backup's: move it away if nothing "
            "needs it, or have it replaced with --force (it is kept beside)"
        )


def _put_secret(settings: Settings, secret: str | None) -> None:
    """Have the backup's secret in the secret file; another one is kept beside it."""
    path = settings.secret_file
    assert path is not None
    if secret is None:
        return
    if path.exists():
        if read_secret(path).decode() == secret:
            return
        write_if_changed(path.with_name(f"{path.name}.replaced"), path.read_bytes(), mode=0o600)
    write_if_changed(path, f"{secret}\n", mode=0o600)
