"""Who may wait for what a node is told: asked once, when the wait begins, in a thread."""

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from slapos.master.certificates.front import Front
from slapos.master.http import Assembly
from slapos.master.identity.caller import CallerKind, serve
from slapos.master.identity.rights import Action, require
from slapos.master.nodes import service as nodes
from slapos.master.web.gateway import Environ, Scope, environ_of
from slapos.master.web.workers import Workers
from slapos.protocol.errors import SlapOSError


class Admission:
    """Asks the application's authentication and rights for those who want to wait."""

    def __init__(self, app: Flask, parts: Assembly, workers: Workers, front: Front) -> None:
        self._app, self._parts, self._workers, self._front = app, parts, workers, front

    async def __call__(self, scope: Scope, reference: str) -> bool:
        """Return whether the one who asks may wait for a node's changes."""
        environ = environ_of(scope)
        self._front.take_over(environ)
        return await self._workers.run(lambda: self._is_admitted(environ, reference))

    def _is_admitted(self, environ: Environ, reference: str) -> bool:
        parts = self._parts
        with self._app.request_context(environ), parts.database.reading() as session:
            try:
                caller = parts.authenticate(session, parts.clock)
                if caller.kind is CallerKind.ANONYMOUS:
                    return False
                serve(session, caller)
                require(session, Action.SEE_VALUES, nodes.find_node(session, reference))
            except (SlapOSError, SQLAlchemyError):
                return False  # the application meets it too, and has words for it
        return True
