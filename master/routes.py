"""Rules of URLs that cost nothing until somebody wants a URL made of one."""

from collections.abc import Callable
from typing import Any

from werkzeug.routing import Rule

Builder = Callable[..., tuple[str, str]]


class Route(Rule):
    """A rule whose way from values to a URL is compiled when it is first gone.

    Werkzeug compiles two functions for each rule as soon as it is added: a fifth of a second for
    ours at each start, of which next to none is ever called. Should it come to do that under
    another name, rules are as slow as before.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Builder:
        compile_now = super()._compile_builder

        def build(rule: Route, *args: Any, **values: Any) -> tuple[str, str]:
            compiled: Builder = compile_now(append_unknown).__get__(rule)
            setattr(rule, "_build_unknown" if append_unknown else "_build", compiled)
            return compiled(*args, **values)

        return build
