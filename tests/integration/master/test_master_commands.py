"""`slapos master …`, as programs."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests
import trustme

from slapos.master import migrations
from slapos.master.database import open_database
from slapos.master.settings import database_url
from tests.e2e.deployment import until

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
    tls = "true" if "certificate_file" in keys else "false"
    keys = {"database_uri": database_uri, "port": "0", "workers": "1", "tls": tls} | keys
    path = folder / "master.cfg"
    lines = "\n".join(f"{key} = {text}" for key, text in keys.items())
    path.write_text(f"[slapos-master]\n{lines}\n")
    return path


@contextmanager
def started(cfg: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a master, and give its URL once it listens; what it logs is beside the settings."""
    words = [*START, "start", "--cfg", str(cfg)]
    with (
        log_of(cfg).open("a") as log,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), log_of(cfg).read_text()
            yield line.split()[-1], process
        finally:
            process.terminate()
            process.communicate(timeout=60)


def log_of(cfg: Path) -> Path:
    return cfg.with_suffix(".log")


def test_it_starts_on_a_machine_that_has_nothing(tmp_path: Path) -> None:
    cfg = tmp_path / "etc" / "master.cfg"
    done = master("init", "--port", "0", cfg=cfg)
    assert done.returncode == 0, done.stderr
    data = tmp_path / "etc" / "slapos-master"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (cfg, data, data / "secret")}
    assert modes == {"master.cfg": 0o600, "slapos-master": 0o700, "secret": 0o600}
    secret = (data / "secret").read_text()
    authority = tmp_path / "authority.pem"
    authority.write_text(master("ca", "show", "--pem", cfg=cfg).stdout)
    with started(cfg) as (url, process):
        assert url.startswith("https://")
        assert requests.get(f"{url}v1/health", timeout=20, verify=str(authority)).ok
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


def test_web_processes_count_together_and_log_each_request(tmp_path: Path) -> None:
    cfg = configured(tmp_path, "master.db", workers="2", log_format="json")
    counted = 'slapos_master_requests_total{method="GET",operation="health.health",status="200"}'
    with started(cfg) as (url, process):
        answers = [requests.get(f"{url}v1/health", timeout=20) for _ in range(6)]
        ids = {answer.headers["X-Request-Id"] for answer in answers}
        assert f"{counted} 6.0" in requests.get(f"{url}metrics", timeout=20).text.splitlines()
        process.send_signal(signal.SIGHUP)
        until(lambda: "all web processes are new" in log_of(cfg).read_text(), "they are new")
        told = requests.get(f"{url}metrics", timeout=20).text.splitlines()
    assert f"{counted} 6.0" in told
    assert "slapos_master_feed_waiters 0.0" in told
    # What `init` says comes before the settings are known.
    logged = [line for line in log_of(cfg).read_text().splitlines() if line.startswith("{")]
    lines = [json.loads(line) for line in logged]
    asked = [line for line in lines if line.get("operation") == "health.health"]
    assert {line["request_id"] for line in asked} == ids
    assert {line["status"] for line in asked} == {200}


def test_a_web_process_that_dies_is_started_again(tmp_path: Path) -> None:
    with started(configured(tmp_path, "master.db", workers="2")) as (url, process):
        first = _web_processes(process)
        assert len(first) == 2
        for each in first:
            each.kill()
        until(lambda: len(_web_processes(process)) == 2, "both are there again")
        assert not set(_web_processes(process)) & set(first)
        assert requests.get(f"{url}v1/health", timeout=20).ok


def test_all_processes_end_whatever_the_first_dies_of(tmp_path: Path) -> None:
    with started(configured(tmp_path, "master.db", workers="2")) as (_, process):
        all_of_them = _web_processes(process)
        process.kill()
        until(lambda: not any(map(_is_alive, all_of_them)), "they have ended")


def test_a_reload_loses_no_request(tmp_path: Path) -> None:
    """On new connections and on old ones, all the while that both processes are replaced."""
    cfg = configured(tmp_path, "master.db", workers="2", anonymous_rate_limit="off")
    with started(cfg) as (url, process), ThreadPoolExecutor(4) as pool:
        over = threading.Event()
        asking = [pool.submit(_ask, url, over, keeps=keeps) for keeps in (True, True, False, False)]
        before = set(_web_processes(process))
        process.send_signal(signal.SIGHUP)
        until(lambda: _are_replaced(process, before), "all processes are new")
        over.set()
        assert all(each.result(60) > 20 for each in asking)


def test_a_reload_that_does_not_come_up_leaves_the_old_processes(tmp_path: Path) -> None:
    cfg = configured(tmp_path, "master.db")
    with started(cfg) as (url, process):
        before = _web_processes(process)
        cfg.write_text("[slapos-master]\nnonsense = 1\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: "the old ones go on" in log_of(cfg).read_text(), "it has tried")
        assert "which is no setting" in log_of(cfg).read_text()
        assert _web_processes(process) == before
        assert requests.get(f"{url}v1/health", timeout=20).ok


def test_it_ends_when_its_processes_do_not_come_up(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nonsense")
    cfg = configured(
        tmp_path,
        "master.db",
        certificate_file=str(tmp_path / "cert.pem"),
        key_file=str(tmp_path / "cert.pem"),
    )
    done = master("start", cfg=cfg)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cert.pem" in done.stderr


def test_a_backup_made_at_work_is_restored_when_nobody_is(
    tmp_path: Path, empty_database_uri: str
) -> None:
    cfg, backup = configured(tmp_path, empty_database_uri), tmp_path / "master.backup"
    with started(cfg):
        done = master("backup", str(backup), "--json", cfg=cfg)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["schema"], told["secret"]) == (migrations.HEAD, True)
        done = master("restore", str(backup), "--force", cfg=cfg)
        assert done.returncode == 1
        assert "end" in done.stderr
        assert "`slapos master start` first" in done.stderr
    secret = tmp_path / "slapos-master" / "secret"
    before = secret.read_text()
    secret.unlink()
    assert "give --force" in master("restore", str(backup), cfg=cfg).stderr
    assert not secret.exists()
    done = master("restore", str(backup), "--force", cfg=cfg)
    assert done.returncode == 0, done.stderr
    assert secret.read_text() == before
    with started(cfg) as (url, _):
        assert requests.get(f"{url}v1/health", timeout=20).ok


def test_a_backup_without_the_secret_needs_the_secret_file(tmp_path: Path) -> None:
    cfg, backup = configured(tmp_path, "master.db"), tmp_path / "master.backup"
    master("init", cfg=cfg)
    done = master("backup", str(backup), "--without-secrets", cfg=cfg)
    assert done.returncode == 0, done.stderr
    data = tmp_path / "slapos-master"
    secret = (data / "secret").read_text()
    assert secret.strip().encode() not in gzip.decompress(backup.read_bytes())
    shutil.rmtree(data)
    done = master("restore", str(backup), cfg=cfg)
    assert done.returncode == 1
    assert "the backup is without the secret" in done.stderr
    (data / "secret").write_text(secret)
    (data / "secret").chmod(0o600)
    assert master("restore", str(backup), cfg=cfg).returncode == 0


def test_an_older_schema_is_upgraded_when_that_is_asked_for(tmp_path: Path) -> None:
    file = str(tmp_path / "master.db")
    database = open_database(database_url(file))
    migrations.upgrade(database, "0006")
    database.close()
    cfg = configured(tmp_path, file, secret_file=_secret(tmp_path))
    done = master("start", cfg=cfg)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has the schema 0006" in done.stderr
    assert "`slapos master upgrade` brings it there" in done.stderr
    done = master("upgrade", cfg=cfg)
    assert done.returncode == 0, done.stderr
    assert f"the schema was 0006, and is {migrations.HEAD}" in done.stdout
    (backup,) = (tmp_path / "slapos-master" / "backups").iterdir()
    assert backup.name.startswith("schema-0006-")
    assert "as it is to be" in master("upgrade", cfg=cfg).stdout
    with started(cfg) as (url, _):
        assert requests.get(f"{url}v1/health", timeout=20).json()["current"] is True


def test_the_first_administrator_gets_one_link(tmp_path: Path) -> None:
    cfg = configured(tmp_path, "master.db", public_url="https://master.example.com/")
    with started(cfg) as (_, process):
        assert process.stdout is not None
        assert "https://master.example.com/setup?token=" in process.stdout.readline()
    with started(cfg) as (_, process):
        process.terminate()
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert "https://master.example.com/setup?token=" in master("init", cfg=cfg).stdout


def test_the_doctor_says_what_is_wrong_and_what_to_do(
    tmp_path: Path, empty_database_uri: str
) -> None:
    cfg = configured(tmp_path, empty_database_uri)
    done = master("doctor", "--json", cfg=cfg)
    assert done.returncode == 1
    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert found["secret"]["level"] == "problem"
    master("init", cfg=cfg)
    cfg.chmod(0o644)
    secret = tmp_path / "slapos-master" / "secret"
    done = master("doctor", cfg=cfg)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"chmod 600 {cfg}" in done.stdout
    assert "there is no administrator yet" in done.stdout
    assert "the certificate authority counts until" in done.stdout
    secret.chmod(0o644)
    assert f"chmod 600 {secret}" in master("doctor", cfg=cfg).stdout
    secret.write_text("another secret than that of the database")
    secret.chmod(0o600)
    done = master("doctor", cfg=cfg)
    assert done.returncode == 1
    assert "was not with this secret file" in done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    cfg = configured(tmp_path, "master.db")
    (tmp_path / "slapos-master").mkdir()
    shown = master("install-service", "--dry-run", cfg=cfg)
    assert shown.returncode == 0, shown.stderr
    unit = tmp_path / "slapos-master.service"
    unit.write_text(shown.stdout)
    judged = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (judged.returncode, judged.stderr) == (0, "")
    assert f"master start --cfg {cfg}" in shown.stdout


def _ask(url: str, over: threading.Event, *, keeps: bool) -> int:
    """Ask again and again; return how often. Raises when a request is lost."""
    with requests.Session() as session:
        count = 0
        while not over.is_set():
            headers = {} if keeps else {"Connection": "close"}
            assert session.get(f"{url}v1/health", timeout=60, headers=headers).ok
            count += 1
            over.wait(0.01)
    return count


def _web_processes(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [each for each in psutil.Process(process.pid).children() if _is_alive(each)]


def _are_replaced(process: subprocess.Popen[str], seen: set[psutil.Process]) -> bool:
    found = _web_processes(process)
    return len(found) == 2 and not seen.intersection(found)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _secret(folder: Path) -> str:
    path = folder / "secret"
    path.write_text("s" * 64)
    path.chmod(0o600)
    return str(path)
