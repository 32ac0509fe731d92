"""`slapos master …`, as programs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import trustme

START = [sys.executable, "-m", "slapos.command", "master"]


def master(*words: str, cfg: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*START, *words, "--cfg", str(cfg)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def configured(folder: Path, database_uri: str, **keys: str) -> Path:
    """Return a settings file in `folder`."""
    keys = {"database_uri": database_uri, "port": "0", "workers": "1"} | keys
    path = folder / "master.cfg"
    lines = "\n".join(f"{key} = {text}" for key, text in keys.items())
    path.write_text(f"[slapos-master]\n{lines}\n")
    return path


@contextmanager
def started(cfg: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a master, and give its URL once it listens."""
    words = [*START, "start", "--cfg", str(cfg)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                process.kill()
                raise AssertionError(process.communicate())
            yield line.split()[-1], process
        finally:
            process.terminate()
            process.communicate(timeout=60)


def test_it_starts_on_a_machine_that_has_nothing(tmp_path: Path) -> None:
    cfg = tmp_path / "etc" / "master.cfg"
    done = master("init", "--port", "0", cfg=cfg)
    assert done.returncode == 0, done.stderr
    data = tmp_path / "etc" / "slapos-master"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (cfg, data, data / "secret")}
    assert modes == {"master.cfg": 0o600, "slapos-master": 0o700, "secret": 0o600}
    secret = (data / "secret").read_text()
    with started(cfg) as (url, process):
        assert requests.get(f"{url}v1/health", timeout=20).ok
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert (data / "secret").read_text() == secret
    assert master("init", cfg=cfg).returncode == 0


def test_start_makes_what_is_missing(tmp_path: Path, empty_database_uri: str) -> None:
    with started(configured(tmp_path, empty_database_uri)) as (url, _):
        assert requests.get(f"{url}v1/health", timeout=20).ok
        assert requests.get(f"{url}v1/nodes", timeout=20).status_code == 401


def test_it_speaks_tls_with_a_given_certificate(tmp_path: Path, database_uri: str) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    cfg = configured(
        tmp_path,
        database_uri,
        certificate_file=str(tmp_path / "cert.pem"),
        key_file=str(tmp_path / "key.pem"),
        secret_file=_secret(tmp_path),
    )
    with started(cfg) as (url, _):
        assert url.startswith("https://")
        assert requests.get(f"{url}v1/health", timeout=20, verify=str(tmp_path / "ca.pem")).ok


def test_a_database_in_use_never_gets_a_new_secret(tmp_path: Path, database_uri: str) -> None:
    cfg = configured(tmp_path, database_uri)
    for command in ("init", "start"):
        done = master(command, cfg=cfg)
        assert (done.returncode, done.stdout) == (1, "")
        assert "there is no secret file" in done.stderr
    assert not (tmp_path / "slapos-master" / "secret").exists()


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"host": "0.0.0.0"}, "passwords and tokens would go there unencrypted"),
        ({"workers": "many"}, "it must be a number"),
        ({"sectret": "x"}, "which is no setting"),
    ],
)
def test_it_refuses_what_is_not_safe_or_not_known(
    keys: dict[str, str], reason: str, tmp_path: Path
) -> None:
    done = master("start", cfg=configured(tmp_path, "master.db", **keys))
    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, database_uri: str) -> None:
    secret = Path(_secret(tmp_path))
    os.chmod(secret, 0o640)
    done = master("start", cfg=configured(tmp_path, database_uri, secret_file=str(secret)))
    assert done.returncode == 1
    assert f"chmod 600 {secret}" in done.stderr


def _secret(folder: Path) -> str:
    path = folder / "secret"
    path.write_text("s" * 64)
    path.chmod(0o600)
    return str(path)
