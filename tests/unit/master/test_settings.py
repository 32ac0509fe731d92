import pytest

from slapos.master.settings import Settings, database_url, read_settings
from slapos.protocol.errors import InvalidConfiguration

NOTHING: dict[str, str | None] = {"database_uri": None, "port": None}


def settings(**slapproxy: str) -> Settings:
    return read_settings({"slapproxy": {"database_uri": "/a/proxy.db"} | slapproxy}, NOTHING)


def test_defaults_are_for_this_machine_only() -> None:
    found = settings()
    assert (found.host, found.port, found.default_node) == ("127.0.0.1", 5000, "computer")
    assert found.database_url == "sqlite:////a/proxy.db"
    assert found.other_masters == ()


def test_an_option_wins_over_the_section_and_that_over_slapos() -> None:
    sections = {
        "slapos": {"computer_id": "COMP-1", "port": "1", "host": "::1"},
        "slapproxy": {"port": "2", "database_uri": "/a"},
    }
    found = read_settings(sections, {"database_uri": "/b", "port": None})
    assert (found.default_node, found.host, found.port) == ("COMP-1", "::1", 2)
    assert found.database_url == "sqlite:////b"
    assert read_settings(sections, {"port": "3"}).port == 3


def test_products_and_other_masters() -> None:
    sections = {
        "slapproxy": {"database_uri": "/a", "software_product_list": "\nweb  http://w\n\nkvm k\n"},
        "multimaster/https://other/": {
            "key": "/k",
            "cert": "/c",
            "computer": "COMP-9",
            "partition": "slappart1",
            "software_release_list": "\n  http://a\n  http://b\n",
        },
        "multimaster/http://plain/": {},
    }
    found = read_settings(sections, NOTHING)
    assert found.software_products == {"web": "http://w", "kvm": "k"}
    secure, plain = found.other_masters
    assert (secure.url, secure.node, secure.partition) == ("https://other/", "COMP-9", "slappart1")
    assert secure.release_urls == ("http://a", "http://b")
    assert (plain.url, plain.key_file, plain.release_urls) == ("http://plain/", None, ())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"port": "http"}, "port is 'http'"),
        ({"software_product_list": "web"}, "has the line 'web'"),
        ({"database_uri": " "}, "no database is named"),
        ({"database_uri": "mysql://x"}, "begins with mysql://"),
    ],
)
def test_what_cannot_be_is_named(given: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidConfiguration, match=reason):
        settings(**given)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("/a/b.db", "sqlite:////a/b.db"),
        ("sqlite:///b.db", "sqlite:///b.db"),
        ("postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgres://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
    ],
)
def test_a_database_is_named_by_path_or_url(written: str, meant: str) -> None:
    assert database_url(written) == meant
