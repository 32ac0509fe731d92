"""The pages in a real browser: everything is done without a script, and looks as it should."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slapos.master.settings import Settings, database_url
from tests.browser.browser import opened_browser
from tests.database import SqliteTemplate
from tests.fakes import FakeClock
from tests.integration.master.people import PASSWORD, People
from tests.integration.master.web_server import served


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium, or the reason why there is none."""
    with opened_browser() as browser:
        yield browser


@pytest.fixture
def people(tmp_path: Path, sqlite_template: SqliteTemplate) -> Iterator[People]:
    sqlite_template.copy_to(tmp_path / "master.db")
    settings = Settings(database_url=database_url(str(tmp_path / "master.db")))
    people = People(settings, FakeClock())
    yield people
    people.close()


def labels_of(page: Any) -> list[bool]:
    """Return for each field whether it has a label."""
    fields = page.locator("input:not([type=hidden]), select")
    return [
        bool(fields.nth(i).evaluate("each => each.labels.length")) for i in range(fields.count())
    ]


@pytest.mark.parametrize("width", [1200, 360])
def test_a_master_is_set_up_and_somebody_makes_a_token(
    people: People, browser: Any, width: int
) -> None:
    with served(people.app) as port:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, java_script_enabled=False
        )
        page = context.new_page()
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text))
        page.goto(f"http://localhost:{port}/setup?token={people.setup_secret()}")
        assert all(labels_of(page))
        page.get_by_label("Your name").fill("operator")
        page.get_by_label("E-mail address").fill("operator@example.com")
        page.get_by_label("Password").fill("passwordpassword")
        page.get_by_role("button", name="Set up").click()
        assert "soon be guessed" in page.locator("#password-reason").inner_text()
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Set up").click()
        assert page.get_by_role("heading", level=1).inner_text() == "Your account"
        # Nothing is wider than the window: one reads it without moving it sideways.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert all(labels_of(page))
        page.get_by_label("What is it for?").fill("ci")
        page.get_by_role("button", name="Make a token").click()
        token = page.locator("code.secret").inner_text()
        assert people.with_token(token).get("/v1/me").get_json()["scopes"] == ["read"]
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("E-mail address").fill("operator@example.com")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/account")
        # No policy, style or form was in the way.
        assert [text for text in refused if "Content Security Policy" in text] == []
        context.close()
