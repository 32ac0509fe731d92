"""What all pages share: how they are protected, and what is shown when something is refused.

A refused form is shown again, by the view that shows it, with the reason above it.
"""

from typing import Any
from urllib.parse import quote, urlsplit

from flask import Response, current_app, g, make_response, redirect, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from slapos.master.http import SAFE_METHODS, reason_of, status_of
from slapos.protocol.errors import (
    CrossSite,
    InvalidFields,
    SignInRefused,
    SlapOSError,
    Unauthorized,
)

#: No script at all, styles only from here, forms only to here, in no frame of anybody.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
SIGN_IN = "/sign-in"
HOME = "/account"
#: Endpoint of a form's POST → endpoint that shows it.
FORMS: dict[str, str] = {}


def page(template: str, status: int = 200, **values: Any) -> Response:
    """Return a page; `problem` in it is why a form was refused, None when none was."""
    problem: SlapOSError | None = g.get("problem")
    fields = dict(problem.fields) if isinstance(problem, InvalidFields) else {}
    shown = render_template(template, problem=problem, fields=fields, given=_given(), **values)
    response = make_response(shown, status)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = "no-store"
    return response


def go(path: str) -> Response:
    """Return an answer that has the browser show another page, by GET."""
    return make_response(redirect(path, 303))


def code_path(path: str) -> str:
    """Return where a code is typed, to go on to a path of this master then."""
    return f"{SIGN_IN}/code?next={quote(path, safe='/')}"


def local_path(text: str | None) -> str:
    """Return a path of this master to go on to; anything else is the way home."""
    if not text or not text.startswith("/") or "\\" in text:
        return HOME
    parts = urlsplit(text)
    is_own = not parts.scheme and not parts.netloc and text.isprintable()
    return text if is_own else HOME


def answer_error(error: SlapOSError) -> ResponseReturnValue:
    """Return the page for an error: the form again, the way to sign in, or the reason alone."""
    endpoint = FORMS.get(request.endpoint or "")
    if isinstance(error, Unauthorized) and not isinstance(error, SignInRefused):
        path = request.full_path.rstrip("?") if request.method in SAFE_METHODS else HOME
        return go(_with_next(path))
    if endpoint is not None and not isinstance(error, CrossSite):
        g.problem = error
        try:
            shown = make_response(current_app.view_functions[endpoint]())
        except SlapOSError as other:
            error = other  # what the form belongs to is not there any more
        else:
            if shown.status_code == 200:
                shown.status_code = status_of(type(error))
            return shown
    g.problem = None
    return page("message.html", status_of(type(error)), message=str(error))


def answer_http_error(error: HTTPException) -> ResponseReturnValue:
    """Return the page for an error that Flask found."""
    if error.response is not None or error.code is None or error.code < 400:
        return error.get_response()
    g.problem = None
    return page("message.html", error.code, message=reason_of(error))


def _with_next(path: str) -> str:
    return SIGN_IN if path == HOME else f"{SIGN_IN}?next={quote(path, safe='/')}"


def _given() -> dict[str, str]:
    """Return what the form had, without what is secret, so that nobody has to type it again."""
    return {name: text for name, text in request.form.items() if "password" not in name}
