"""slapos.core's own slapproxy behind a remote node of ours: asked as any other master."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from slapos.master.remote.asking import Credentials, Peer, Reach, Told, Wanted, ask, speaking_with
from slapos.protocol.states import InstanceState
from tests.conformance.peer_environment import peer_environment
from tests.conformance.test_command_line import master

pytestmark = pytest.mark.conformance
URL = "https://example.org/software.cfg"


def wanted(state: InstanceState = InstanceState.STARTED, **parameters: str) -> Wanted:
    return Wanted(
        title="_remote_PROJ-1_SOFTINST-2",
        software_url=URL,
        software_type="default",
        shared=False,
        state=state,
        parameters=parameters,
    )


def test_an_instance_is_ordered_published_and_destroyed(tmp_path: Path) -> None:
    reach = Reach((ip_network("127.0.0.0/8"),))
    with master(peer_environment() / "slapos", tmp_path) as url:
        peer = Peer(
            f"{url}/", "", Credentials(token="of nobody"), filters={"computer_guid": "local"}
        )
        with speaking_with(peer, reach) as client:
            client.supply(URL, "local")
            assert ask(client, peer, wanted(colour="blue")) == Told({}, is_done=True)
            held = client.node_information("local").partitions[0]
            assert held.parameters["colour"] == "blue"
            client.publish("local", held.reference, {"url": "http://far/"})
            told = ask(client, peer, wanted(colour="blue"))
            assert told == Told({"url": "http://far/"}, is_done=True)
            nowhere = Peer(peer.url, "", peer.credentials, filters={"computer_guid": "none"})
            assert ask(client, nowhere, Wanted(**{**vars(wanted()), "title": "x"})).is_refused
            assert ask(client, peer, wanted(InstanceState.DESTROYED)).is_done
            held = client.node_information("local").partitions[0]
            assert held.state is InstanceState.DESTROYED
