"""What may stand for a software release on the command line: a URL, a path, a product's name."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from slapos.protocol.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from slapos.protocol.slap_client import SlapClient

PROFILE = "software.cfg"
PRODUCT_PREFIX = "product."


def release_url(given: str, client: "SlapClient") -> str:
    """Return the URL or absolute path that a master is told.

    `product.NAME` is the product's best release, as the master says; a path is made absolute, and
    a folder means the software.cfg in it. Raises NotFound for a product that has no release,
    InvalidRequest for a relative path where nothing is.
    """
    if given.startswith(PRODUCT_PREFIX) and not Path(given).exists():
        product = given.removeprefix(PRODUCT_PREFIX)
        releases = client.product_releases(product)
        if not releases:
            raise NotFound(f"the master knows no release of the software product {product!r}")
        return releases[0]
    return given if "://" in given else _absolute(given)


def _absolute(given: str) -> str:
    path = Path(os.path.abspath(os.path.expanduser(given)))
    if (path / PROFILE).is_file():
        return str(path / PROFILE)
    # An absolute path may well be one that only the node has.
    if not os.path.isabs(os.path.expanduser(given)) and not path.is_file():
        raise InvalidRequest(
            f"{given!r} is no software release: give a URL, product.NAME, or the path of a "
            f"{PROFILE} or of its folder (there is no {path})"
        )
    return str(path)
