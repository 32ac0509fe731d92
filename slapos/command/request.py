"""Order a service, or change it: a request with the same reference replaces what was asked before.

A service is an instance of a software release. Its parameters are checked against the schema that
the release brings (software.cfg.json), and --wait follows it until all of it is healthy.
A request replaces all parameters: those that are not given again are gone.

examples:
  slapos request blog software/kinto --wait
  slapos request blog https://example.com/kinto/software.cfg --parameters workers=4 log.level=info
  slapos request blog product.kinto --node computer_guid=COMP-1234 --parameters-file blog.yaml
  slapos request blog software/kinto --state stopped
  slapos request blog software/kinto --wait --timeout 300 --json | jq .connection

exit status: 0 requested (with --wait: everything is healthy), 1 failed or refused, 2 not ready yet
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from slapos.command.client_settings import (
    ClientSettings,
    add_configuration_argument,
    add_json_argument,
    client_settings,
    connect,
    connect_hateoas,
)
from slapos.command.parameters import (
    GivenParameters,
    collect,
    key_and_value,
    prepare,
    read_parameters_file,
)
from slapos.command.release_url import release_url
from slapos.command.service_info import read_tree
from slapos.command.tree_view import describe
from slapos.command.tree_watch import LeavingTree, MasterTree, RequestedTree, TreeReader, Waited
from slapos.command.waiting import EXIT_STATUS, add_wait_arguments, explain, outcome, wait
from slapos.protocol.descriptor import Serialisation, fetch_document
from slapos.protocol.errors import NotFound, NotReady, SlapOSError
from slapos.protocol.hateoas_client import readable
from slapos.protocol.instance_xml import JSON_KEY
from slapos.protocol.messages import RequestedInstance
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.states import InstanceState
from slapos.protocol.tree_status import Phase
from slapos.system.settings import environment

EXIT_NOT_READY = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("reference", help="the service's name, of your choice")
    parser.add_argument("url", help="the software release: a URL, a path, or product.NAME")
    pairs: dict[str, Any] = {"nargs": "*", "type": key_and_value, "action": "extend", "default": []}
    parser.add_argument(
        "--node",
        **pairs,
        metavar="KEY=VALUE",
        help="where it may run, such as computer_guid=COMP-1234",
    )
    parser.add_argument("--type", metavar="TYPE", help="the software type (default: default)")
    parser.add_argument(
        "--state",
        choices=[str(state) for state in InstanceState],
        default="started",
        help="what is wanted of it (default: %(default)s)",
    )
    parser.add_argument(
        *("--slave", "--shared"),
        dest="shared",
        action="store_true",
        help="order a share of an instance that others share too",
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--parameters", **pairs, metavar="KEY=VALUE", help="its parameters")
    given.add_argument(
        "--parameters-file",
        type=Path,
        metavar="FILE",
        help="its parameters, in a file of JSON, .yaml or .xml",
    )
    parser.add_argument(
        "--force-serialisation",
        type=Serialisation,
        choices=list(Serialisation),
        metavar="{xml,json-in-xml}",
        help="how the parameters travel, whatever the release says",
    )
    parser.add_argument(
        "--no-check", action="store_true", help="only warn of parameters that do not fit"
    )
    add_wait_arguments(parser, "all its instances are healthy, showing the progress")
    add_configuration_argument(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check, request, and wait when asked to."""
    settings = client_settings(arguments, environment())
    client = connect(settings)
    url = release_url(arguments.url, client)
    prepared = prepare(
        _given(arguments),
        release=url,
        software_type=arguments.type,
        shared=arguments.shared,
        forced=arguments.force_serialisation,
        check=not arguments.no_check,
        fetch=fetch_document,
    )
    for note in prepared.notes:
        _say(arguments, f"note: {note}")
    _note_other_release(arguments, client, url)
    request = partial(
        client.request,
        software_url=url,
        title=arguments.reference,
        software_type=prepared.software_type,
        parameters=prepared.parameters,
        filters=collect(arguments.node),
        state=InstanceState(arguments.state),
        shared=arguments.shared,
    )
    _say(arguments, f"requesting {arguments.reference} as an instance of {url}")
    answer: RequestedInstance | None = None
    not_ready = ""
    try:
        answer = request()
    except NotReady as error:
        not_ready = str(error)
    if not arguments.wait:
        status = _tell(arguments, answer, not_ready)
        _say_how_it_is(arguments, client)
        return status
    state = InstanceState(arguments.state)
    repeat: TreeReader = RequestedTree(arguments.reference, url, state, request)
    if state is InstanceState.DESTROYED:
        repeat = LeavingTree(connect_hateoas(client, settings), arguments.reference)
    tree = _reader(client, arguments, repeat)
    waited = wait(tree, arguments, until_gone=state is InstanceState.DESTROYED)
    return _tell_waited(arguments, waited, settings)


def _note_other_release(arguments: argparse.Namespace, client: SlapClient, url: str) -> None:
    """Say so when the name is taken by an instance of another release: it may be a slip."""
    tree = read_tree(client, arguments.reference)
    if tree is not None and tree.root.software_url != url:
        _say(
            arguments,
            f"note: {arguments.reference} has been an instance of {tree.root.software_url}, "
            "and is changed into one of the release that is named now",
        )


def _given(arguments: argparse.Namespace) -> GivenParameters:
    if arguments.parameters_file is not None:
        return read_parameters_file(arguments.parameters_file.expanduser())
    return GivenParameters(words=collect(arguments.parameters))


def _reader(client: SlapClient, arguments: argparse.Namespace, repeat: TreeReader) -> TreeReader:
    """Return the master's own account of the tree, or the repeated request where it has none."""
    tree = MasterTree(client, arguments.reference)
    try:
        tree.read()
    except NotFound:
        if arguments.state == InstanceState.DESTROYED:
            return repeat
        _say(
            arguments,
            "note: this master does not tell how a service is doing; repeating the request "
            "until the service has published something",
        )
        return repeat
    except SlapOSError:
        return tree
    return tree


def _say(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.quiet:
        print(text, file=sys.stderr)


def _published(connection: dict[str, Any]) -> dict[str, Any]:
    """Return published values, those of json-in-xml out of their wrapping."""
    values = readable(connection)
    inner = values.get(JSON_KEY)
    return inner if set(values) == {JSON_KEY} and isinstance(inner, dict) else values


def _tell(arguments: argparse.Namespace, answer: RequestedInstance | None, not_ready: str) -> int:
    """Say what the master answered to a request that nobody waits for."""
    connection = _published(answer.connection) if answer else {}
    if arguments.json:
        told = {
            "reference": arguments.reference,
            "ready": answer is not None,
            "state": answer.state if answer else arguments.state,
            "guid": answer.guid if answer else None,
            "node": answer.node if answer else None,
            "partition": answer.partition if answer else None,
            "connection": connection,
            "message": not_ready,
        }
        print(json.dumps(told, indent=2))
    elif answer is None:
        print(f"requested, and not ready yet: {not_ready}", file=sys.stderr)
        _say(arguments, "The same command again, or with --wait, tells more.")
    else:
        _say(arguments, f"Instance requested.\nState is : {answer.state}.")
        _say(arguments, "Connection parameters of instance are:")
        print(json.dumps(connection, indent=2, sort_keys=True))
        _say(arguments, "You can rerun the command to get up-to-date information.")
    return 0 if answer is not None else EXIT_NOT_READY


def _say_how_it_is(arguments: argparse.Namespace, client: SlapClient) -> None:
    """Say what the service waits for, where the master tells."""
    tree = None if arguments.json or arguments.quiet else read_tree(client, arguments.reference)
    if tree is not None and tree.root.phase is not Phase.HEALTHY:
        _title, phase, place, said = describe(tree.root)
        where = f" ({place})" if place else ""
        print(f"It is {phase}{where}: {said or 'nothing is known of why'}", file=sys.stderr)


def _tell_waited(arguments: argparse.Namespace, waited: Waited, settings: ClientSettings) -> int:
    """Say how waiting ended."""
    status = EXIT_STATUS[waited.verdict]
    connection = _published(waited.tree.root.connection) if waited.tree else {}
    if arguments.json:
        told = {"reference": arguments.reference, "ready": status == 0, "connection": connection}
        print(json.dumps({**told, **outcome(waited)}, indent=2))
    if status:
        print(explain(waited, arguments.reference, settings), file=sys.stderr)
    else:
        _say(arguments, f"{arguments.reference} is {waited.verdict} after {waited.seconds:.1f} s")
        if not arguments.json:
            print(json.dumps(connection, indent=2, sort_keys=True))
    return status
