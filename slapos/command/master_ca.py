"""Show and change the certificate authorities of a master, and revoke certificates.

It works on the database itself; web processes that run take over what has changed within half a
minute. `rotate` makes another authority, which begins to sign two minutes later; what the old one
has signed goes on counting until `retire`, for which nodes need some days to renew theirs.

examples:
  slapos master ca show
  slapos master ca show --pem > authority.pem
  slapos master ca rotate
  slapos master ca retire 3f2a
  slapos master ca list COMP-7
  slapos master ca revoke COMP-7

exit status: 0 done, 1 failed or refused
"""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slapos.command.columns import aligned, plain
from slapos.command.master_options import add_master_arguments, opened_master
from slapos.protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from slapos.master.certificates.authorities import Issuing
    from slapos.master.offline import OfflineMaster

Rows = list[dict[str, Any]]
ACTIONS = ("show", "rotate", "retire", "list", "revoke")
#: How much of a fingerprint is enough to name an authority.
SHORT = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="retire: how the fingerprint of an authority begins; list, revoke: COMP-n, SOFTINST-n "
        "or P-n, or the serial number of one certificate",
    )
    parser.add_argument("--pem", action="store_true", help="show: print the certificates")
    parser.add_argument(
        "--force",
        action="store_true",
        help="retire: although there are nodes that have no certificate of another authority yet",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do it, and print what there is then."""
    if arguments.action in ("retire", "list", "revoke") and not arguments.name:
        raise InvalidRequest(f"{arguments.action} needs a NAME; see `slapos master ca --help`")
    with opened_master(arguments) as master:
        if arguments.action in ("list", "revoke"):
            rows = _certificates(master, arguments)
        else:
            rows = _authorities(master, arguments)
    if arguments.pem:
        print("".join(row["certificate"] for row in rows), end="")
    elif arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            row.pop("certificate", None)
        names = [name.upper().replace("_", " ") for name in rows[0]] if rows else []
        lines = [[plain(str(value)) for value in row.values()] for row in rows]
        print("\n".join(aligned([names, *lines])) if rows else "there are none")
    return 0


def _authorities(master: "OfflineMaster", arguments: argparse.Namespace) -> Rows:
    from slapos.master.certificates import authorities  # noqa: PLC0415 - not for `--help`

    issuing = issuing_of(master)

    def work(session: Any) -> Rows:
        if arguments.action == "rotate":
            authorities.rotate(session, issuing)
        elif arguments.action == "retire":
            name, anyway = arguments.name, arguments.force
            authorities.retire(session, master.clock, name, anyway=anyway)
        else:
            authorities.ensure_authority(session, issuing)
        signing = authorities.active_authority(session, master.clock)
        return [
            {
                "fingerprint": each.fingerprint if arguments.json else each.fingerprint[:SHORT],
                "signs": _signs(each is signing, each.signs_from, master),
                "in_use": authorities.holders(session, master.clock, each),
                "ends": each.not_after.date().isoformat(),
                "certificate": each.certificate,
            }
            for each in authorities.trusted(session)
        ]

    return master.write(work)


def _signs(is_signing: bool, signs_from: Any, master: "OfflineMaster") -> str:
    if is_signing:
        return "yes"
    return "no" if signs_from <= master.clock.now() else f"from {signs_from:%H:%M:%S} UTC"


def _certificates(master: "OfflineMaster", arguments: argparse.Namespace) -> Rows:
    from slapos.master.certificates import service  # noqa: PLC0415 - not for `--help`

    def work(session: Any) -> Rows:
        found: Sequence[Any] = service.named(session, arguments.name)
        now = master.clock.now()
        if arguments.action == "revoke":
            for each in found:
                if each.revoked_at is None:
                    each.revoke(now)
        return [
            {
                "serial": each.serial,
                "kind": each.kind,
                "issued": f"{each.issued_at:%Y-%m-%d %H:%M}",
                "ends": f"{each.not_after:%Y-%m-%d %H:%M}",
                "revoked": f"{each.revoked_at:%Y-%m-%d %H:%M}" if each.revoked_at else "no",
            }
            for each in found
        ]

    return master.write(work)


def issuing_of(master: "OfflineMaster") -> "Issuing":
    """Return what it takes to issue, from the master's secret file."""
    from slapos.master.certificates.authorities import PURPOSE, Issuing  # noqa: PLC0415
    from slapos.master.identity.secret_box import SecretBox  # noqa: PLC0415
    from slapos.master.secret_file import read_secret  # noqa: PLC0415

    assert master.settings.secret_file is not None
    return Issuing(master.clock, SecretBox(read_secret(master.settings.secret_file), PURPOSE))
