"""`slapos node format`: bring the machine to its plan, and tell the master."""

import importlib
import ipaddress
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from types import ModuleType

import psutil

from slapos.node.format.accounts import Accounts, UserNotMade
from slapos.node.format.documents import (
    definition_text,
    node_document,
    resource_text,
    xml_text,
)
from slapos.node.format.folders import ensure_folder
from slapos.node.format.plan import NodePlan, make_plan
from slapos.node.settings import FormatSettings
from slapos.protocol.errors import InvalidConfiguration, SlapOSError
from slapos.protocol.slap_client import SlapClient
from slapos.system.clock import Clock
from slapos.system.files import write_if_changed
from slapos.system.runner import Runner

logger = logging.getLogger(__name__)

RESOURCE = ".slapos-resource"

DONE = 0
NOT_POSTED = 2


def format_node(
    settings: FormatSettings,
    client: SlapClient,
    runner: Runner,
    environment: Mapping[str, str],
    clock: Clock,
) -> int:
    """Prepare the machine; return 0, or 2 when all is done but the master was not told.

    Raises SlapOSError when it could not be prepared.
    """
    plan = make_plan(settings)
    check_feasible(plan, settings)
    if settings.on_interfaces:
        _network().check_network(settings, plan)
    accounts = Accounts(runner, environment, dry_run=settings.dry_run)
    if settings.alter_user:
        accounts.ensure(plan.software_user, settings.software_root)
        for partition in plan.partitions:
            accounts.ensure(partition.user, partition.folder, group=plan.software_user)
    if settings.on_interfaces:
        plan = _network().prepare_network(settings, plan, accounts, clock)
    _make_folders(plan, settings, accounts)
    if settings.dry_run:
        logger.info("nothing was changed: this was a dry run")
        return DONE
    document = node_document(plan, settings)
    _write_documents(plan, settings, document)
    logger.info("%s is prepared with %s partitions", plan.reference, len(plan.partitions))
    try:
        client.post_node_configuration(document)
    except SlapOSError as error:
        logger.error("the master was not told of it: %s", error)
        return NOT_POSTED
    return DONE


def check_feasible(plan: NodePlan, settings: FormatSettings) -> None:
    """See that the plan can be carried out. Raises InvalidConfiguration."""
    if settings.alter_user and os.geteuid() != 0:
        raise InvalidConfiguration(
            "users can only be made by root: run this as root, or set alter_user = false in "
            "[slapformat] to have all partitions run as yourself"
        )
    _refuse_fewer(plan, settings)
    if settings.on_interfaces:
        _need_root(settings)
    if settings.on_interfaces or not settings.alter_network:
        return
    if settings.makes_taps:
        raise InvalidConfiguration(
            "tap interfaces are only made together with addresses: set interface_name in "
            "[slapformat] (and no input_definition_file), or create_tap = false"
        )
    missing = _missing_addresses(plan)
    if missing:
        raise InvalidConfiguration(
            f"{missing[0]} is not on this machine: set interface_name in [slapformat] to have "
            "addresses added to that interface, or ipv4_local_network to a part of 127.0.0.0/8, or "
            "add the addresses yourself, name them in input_definition_file and set "
            "alter_network = false"
        )


def undo(settings: FormatSettings) -> int:
    """Take away from interfaces what was added to them; return the exit status."""
    _need_root(settings)
    amount = _network().undo_network(settings)
    if settings.dry_run:
        logger.info("nothing was changed: this was a dry run")
    elif amount:
        logger.info("%s things were removed from interfaces; users and directories stay", amount)
    else:
        logger.info("nothing is on interfaces that node format added")
    return DONE


def _network() -> ModuleType:
    # pyroute2 takes a third of a second to import: not for those who do without it.
    return importlib.import_module("slapos.node.format.network")


def _need_root(settings: FormatSettings) -> None:
    if os.geteuid() != 0 and not settings.dry_run:
        raise InvalidConfiguration(
            "interfaces can only be changed by root: run this as root, or set "
            "alter_network = false in [slapformat]"
        )


def _refuse_fewer(plan: NodePlan, settings: FormatSettings) -> None:
    """Partitions may only be added: one that is left out could be in use."""
    planned = {partition.reference for partition in plan.partitions}
    pattern = re.compile(re.escape(settings.partition_base_name) + r"\d+")
    with suppress(FileNotFoundError):
        for path in settings.instance_root.iterdir():
            left_out = pattern.fullmatch(path.name) and path.name not in planned
            if left_out and (path / RESOURCE).is_file():
                raise InvalidConfiguration(
                    f"{path} is a partition and is left out: partition_amount may only grow; "
                    "to give it up, destroy what is in it and remove the directory"
                )


def _missing_addresses(plan: NodePlan) -> list[str]:
    present = {
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
    }
    wanted = [a.partition("/")[0] for partition in plan.partitions for a in partition.addresses]
    return [a for a in wanted if a not in present and not ipaddress.ip_address(a).is_loopback]


def _make_folders(plan: NodePlan, settings: FormatSettings, accounts: Accounts) -> None:
    dry_run = settings.dry_run
    ensure_folder(settings.instance_root, 0o755, dry_run=dry_run)
    owner = _owner(plan.software_user, settings, accounts)
    ensure_folder(settings.software_root, 0o755, owner, dry_run=dry_run)
    if settings.certificate_repository_path is not None:
        ensure_folder(settings.certificate_repository_path, 0o711, dry_run=dry_run)
    for partition in plan.partitions:
        owner = _owner(partition.user, settings, accounts)
        ensure_folder(partition.folder, 0o750, owner, dry_run=dry_run)


def _owner(user: str, settings: FormatSettings, accounts: Accounts) -> tuple[int, int] | None:
    if not settings.alter_user:
        return None
    owner = accounts.owner(user)
    if owner is None and not settings.dry_run:
        raise UserNotMade(f"the user {user} was made and is not there: check /etc/nsswitch.conf")
    return owner


def _write_documents(plan: NodePlan, settings: FormatSettings, document: dict[str, object]) -> None:
    for partition in plan.partitions:
        write_if_changed(partition.folder / RESOURCE, resource_text(partition))
    for path, text in (
        (settings.computer_xml, xml_text(document)),
        (settings.computer_json, json.dumps(document, indent=2, sort_keys=True) + "\n"),
        (settings.output_definition_file, definition_text(plan)),
    ):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_if_changed(path, text)
