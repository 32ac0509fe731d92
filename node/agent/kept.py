"""The last good answer of the master, on disk: what the node goes by while the master is away."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from slapos.protocol.errors import MasterFailed
from slapos.protocol.messages import NodeInformation
from slapos.protocol.slap_client import read_node_document
from slapos.system.files import write_if_changed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a master said: its document to the byte, the entity tag of that, and the feed's token.

    Without a tag or a token it gave none.
    """

    document: str
    etag: str = ""
    token: str = ""

    def information(self) -> NodeInformation:
        """Return what it means. Raises MasterFailed when it makes no sense."""
        return read_node_document(self.document)


def read_kept(path: Path) -> tuple[Answer, NodeInformation] | None:
    """Return the answer in a file, None when there is none that can be read."""
    try:
        answer = Answer(**json.loads(path.read_bytes()))
        return answer, answer.information()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, MasterFailed) as error:
        logger.warning("what the master said last is lost, %s cannot be read: %s", path, error)
        return None


def keep(path: Path, answer: Answer) -> None:
    """Keep an answer, for root only: it holds passwords of instances. Raises OSError."""
    write_if_changed(path, json.dumps(asdict(answer)), mode=0o600)
