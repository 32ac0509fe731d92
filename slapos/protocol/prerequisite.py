"""What an instance says that waits for another one: its recipe to the node, the node to the master.

Such a buildout ends with an error, for older nodes; but nothing is wrong, it only came too early.
"""

import re

#: The stable word for it, where the status of an instance has a reason.
WAITING = "waiting"
_SENTENCE = re.compile(r"waiting for .+: not ready yet\b.*")


def waiting_sentence(title: str, why: str) -> str:
    """Return what is said by an instance that waits for the one it calls `title`."""
    return f"waiting for {title}: not ready yet{why}"


def read_waiting_sentence(error: str) -> str | None:
    """Return the sentence in an error (`Error: [section] …`), None if it is another error."""
    found = _SENTENCE.fullmatch(re.sub(r"^(Error: )?(\[[^]]*\] )?", "", error.strip()))
    return found.group() if found else None
