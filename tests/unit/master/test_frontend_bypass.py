"""Requests for frontends, answered without one."""

from typing import Any

import pytest

from slapos.master.provisioning.service import InstanceOrder
from slapos.master.slap.frontend import KVM_RELEASE, WEB_RELEASE, bypass


def web(*, shared: bool = True, url: str = WEB_RELEASE, **parameters: Any) -> InstanceOrder:
    return InstanceOrder(title="frontend", software_url=url, parameters=parameters, shared=shared)


def test_a_backend_is_its_own_frontend() -> None:
    found = bypass(web(url="http://elsewhere/"), None)
    assert found is None
    order = InstanceOrder(
        title="f", software_url=WEB_RELEASE, shared=True, parameters={"url": "http://[::1]:80/a"}
    )
    found = bypass(order, None)
    assert found is not None
    assert found.connection == {"secure_access": "http://[::1]:80/a", "domain": "[::1]:80"}


def test_a_secure_master_gives_its_proxy() -> None:
    order = InstanceOrder(
        title="f", software_url=WEB_RELEASE, shared=True, parameters={"url": "http://[::1]:80/a"}
    )
    found = bypass(order, lambda backend: f"https://master/http_proxy/{backend}")
    assert found is not None
    assert found.connection["domain"] == "master"


@pytest.mark.parametrize(
    ("host", "name"), [("::1", "[::1]"), ("[::1]", "[::1]"), ("10.0.0.1", "10.0.0.1")]
)
def test_a_screen_is_reached_at_its_host(host: str, name: str) -> None:
    order = InstanceOrder(
        title="f",
        software_url=KVM_RELEASE,
        software_type="frontend",
        shared=True,
        parameters={"host": host, "port": 6080},
    )
    found = bypass(order, None)
    assert found is not None
    assert found.connection == {
        "url": f"https://{name}:6080/",
        "domainname": name,
        "port": "6080",
        "path": "/",
    }


def test_other_requests_are_none_of_this() -> None:
    assert bypass(web(shared=False), None) is None
    assert bypass(web(), None) is None, "a frontend without a backend has to be real"
