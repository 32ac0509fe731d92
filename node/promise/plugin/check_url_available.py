"""The URL `url` answers, with the status `http-code` (200) unless `ignore-code` is set.

`username` and `password` are sent when both are there, `cert-file` and `key-file` likewise. With
`verify` (or `ca-cert-file`) the server's certificate is checked, which it is not otherwise.
`allow-redirects = 0` judges a redirection itself, and `timeout` is in seconds.
"""

import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import InsecureRequestWarning

from slapos.node.promise.plugin.counted import CountedPromise, is_address
from slapos.protocol.http_client import cause_of


class RunPromise(CountedPromise):
    """Gets the URL."""

    default_count = 3

    def __init__(self, config: dict[str, Any]) -> None:
        """Read the options."""
        super().__init__(config)
        self._url = self.text("url")
        self._code = int(self.number("http-code", 200))
        # Sooner than the launcher would end this promise, so that it can say why.
        limit = max(1.0, min(5.0, self.number("promise-timeout", 20.0) - 1.0))
        self._timeout = self.number("timeout", limit)

    def is_interruptible(self, partition: Path) -> bool:
        """Whether there is no name to look up."""
        return _is_near(self._url)

    def sense(self) -> None:
        """Get it."""
        try:
            with self._session() as session, self._get(session) as response:
                status = response.status_code
        except requests.exceptions.SSLError as error:
            self.logger.error("%s could not prove who it is: %s", self._url, cause_of(error))
        except requests.exceptions.Timeout:
            self.logger.error("%s gave no answer within %g s", self._url, self._timeout)
        except (requests.exceptions.RequestException, OSError, ValueError) as error:
            self.logger.error("%s cannot be reached: %s", self._url, cause_of(error))
        else:
            self._judge(status)

    def _judge(self, status: int) -> None:
        if self.flag("ignore-code", False):
            self.logger.info("%s answers (with status %d)", self._url, status)
        elif status == self._code:
            self.logger.info("%s answers with status %d", self._url, status)
        else:
            self.logger.error(
                "%s answers with status %d, and should with %d", self._url, status, self._code
            )

    def _session(self) -> requests.Session:
        session = requests.Session()
        # A proxy is for the world outside, not for an address of a partition.
        session.trust_env = not _is_near(self._url)
        given = self.getConfig
        if given("cert-file") and given("key-file"):
            session.cert = (given("cert-file"), given("key-file"))
        if given("username") and given("password"):
            session.auth = (given("username"), given("password"))
        return session

    def _get(self, session: requests.Session) -> requests.Response:
        with warnings.catch_warnings():
            # The release said so.
            warnings.simplefilter("ignore", InsecureRequestWarning)
            # The status is enough: the body may be long, or never end.
            return session.get(
                self._url,
                timeout=self._timeout,
                # Said here: what a session says gives way to REQUESTS_CA_BUNDLE.
                verify=self.getConfig("ca-cert-file") or self.flag("verify", False),
                allow_redirects=self.flag("allow-redirects", True),
                stream=True,
            )


def _is_near(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host == "localhost" or is_address(host)
