"""Removing releases that nobody wants any more."""

import logging
import re

from slapos.node.build.folder import remove_release
from slapos.node.layout import Layout, release_digest
from slapos.protocol.messages import NodeInformation

logger = logging.getLogger(__name__)


def collect_garbage(layout: Layout, known: NodeInformation) -> None:
    """Remove every built release that the master does not name and no partition runs."""
    urls = {release.url for release in known.releases}
    urls |= {partition.software_url for partition in known.partitions if partition.software_url}
    kept = {release_digest(url) for url in urls}
    for folder in sorted(layout.software_root.iterdir()):
        is_release = re.fullmatch(r"[0-9a-f]{32}", folder.name) and not folder.is_symlink()
        if is_release and folder.name not in kept and (folder / "buildout.cfg").exists():
            logger.info("removing %s: nobody wants it any more", folder)
            try:
                remove_release(folder)
            except OSError as error:
                logger.error("%s cannot be removed: %s", folder, error)
