from pathlib import Path

import pytest

from slapos.master.full_settings import KEYS, SECTION, explained, read_full_settings
from slapos.master.settings import Profile, Rate, Settings
from slapos.master.web.listening import refuse_unsafe
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.settings import read_configuration

FOLDER = Path("/etc/master")


def settings(**keys: str) -> Settings:
    return read_full_settings({SECTION: keys}, FOLDER)


def test_without_anything_it_serves_this_machine_from_a_folder_beside_the_file() -> None:
    found = settings()
    assert found.profile is Profile.FULL
    assert (found.host, found.port, found.workers) == ("127.0.0.1", 8443, 2)
    assert found.data_directory == FOLDER / "slapos-master"
    assert found.database_url == "sqlite:////etc/master/slapos-master/master.db"
    assert found.secret_file == FOLDER / "slapos-master/secret"
    assert found.certificate_file is None


def test_paths_are_below_the_data_directory_unless_they_are_absolute() -> None:
    found = settings(data_directory="/srv/m", database_uri="my.db", secret_file="/etc/secret")
    assert found.database_url == "sqlite:////srv/m/my.db"
    assert found.secret_file == Path("/etc/secret")


def test_a_database_server_and_proxies() -> None:
    found = settings(
        database_uri="postgresql://u:p@db/slapos", trusted_proxies="10.0.0.1, 2001:db8::/64"
    )
    assert found.database_url == "postgresql+psycopg://u:p@db/slapos"
    assert [str(each) for each in found.trusted_proxies] == ["10.0.0.1/32", "2001:db8::/64"]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"prot": "1"}, "has prot, which is no setting; there are data_directory, database_uri"),
        ({"port": "http"}, "port is 'http'"),
        ({"workers": "0"}, "workers = 0: it must be a number from 1 to 1000"),
        ({"public_url": "master"}, "it must be a URL such as"),
        ({"trusted_proxies": "10.0.0.1/8"}, "trusted_proxies = 10.0.0.1/8"),
        ({"database_uri": "mysql://x"}, "begins with mysql://"),
        ({"key_file": "k"}, "one of certificate_file and key_file"),
    ],
)
def test_what_cannot_be_is_named(keys: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidConfiguration, match=reason.replace("(", r"\(")):
        settings(**keys)


def test_rates_are_two_numbers_or_off() -> None:
    assert settings(rate_limit="0.5 10").rate_limit == Rate(0.5, 10)
    assert settings(rate_limit="off").rate_limit is None
    for wrong in ("5", "x y", "0 10", "1 0", "-1 10", "1 inf"):
        with pytest.raises(InvalidConfiguration, match="rate_limit"):
            settings(rate_limit=wrong)


def test_the_explained_file_says_what_holds_without_it(tmp_path: Path) -> None:
    path = tmp_path / "master.cfg"
    path.write_text(explained({}))
    assert read_full_settings(read_configuration(path), FOLDER) == settings()
    path.write_text(
        "\n".join(
            line.removeprefix("# ") if "=" in line.split(maxsplit=2)[2:3] or " = " in line else line
            for line in explained({}).splitlines()
        )
    )
    assert read_full_settings(read_configuration(path), FOLDER) == settings()


def test_each_setting_is_in_the_reference() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/master.md").read_text()
    full = page.partition("## The full profile")[2]
    assert [key.name for key in KEYS if f"`{key.name}`" not in full] == []


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"host": "::1"},
        {"host": "0.0.0.0", "certificate_file": "c", "key_file": "k"},
        {"host": "0.0.0.0", "trusted_proxies": "10.0.0.1"},
    ],
)
def test_it_listens_where_nothing_crosses_a_network_unencrypted(keys: dict[str, str]) -> None:
    refuse_unsafe(settings(**keys))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "master.example.com"])
def test_it_listens_beyond_loopback_only_with_tls(host: str) -> None:
    with pytest.raises(InvalidConfiguration, match="unencrypted"):
        refuse_unsafe(settings(host=host, tls="false"))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"smtp_url": "smtp://mail.example.com"}, "without the other"),
        ({"smtp_url": "smtp://mail.example.com", "mail_from": "m@example.com"}, "public_url"),
        ({"smtp_url": "http://mail.example.com"}, "must be a URL"),
        ({"smtp_url": "smtp://me:secret@mail.example.com"}, "smtp_password_file"),
        ({"mail_from": "nobody"}, "must be an address"),
        ({"second_factor_roles": "king"}, "king is no role"),
    ],
)
def test_settings_of_mail_and_second_factors_that_cannot_be(
    keys: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=reason):
        settings(**keys)


def test_second_factors_are_demanded_of_roles_or_of_everybody() -> None:
    assert settings().second_factor_roles == frozenset()
    assert settings(second_factor_roles="administrator, support").second_factor_roles == {
        "administrator",
        "support",
    }
    assert "customer" in settings(second_factor_roles="everybody").second_factor_roles
