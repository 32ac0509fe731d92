"""Codes as RFC 6238 has them."""

import base64

import pytest

from slapos.master.identity.second_factor import STEP, code_at

#: RFC 6238, appendix B, for SHA-1: the last six of the eight digits there.
SECRET = base64.b32encode(b"12345678901234567890").decode()
VECTORS = [
    (59, "94287082"),
    (1111111109, "07081804"),
    (1111111111, "14050471"),
    (1234567890, "89005924"),
    (2000000000, "69279037"),
    (20000000000, "65353130"),
]


@pytest.mark.parametrize(("seconds", "code"), VECTORS)
def test_codes_are_those_of_the_standard(seconds: int, code: str) -> None:
    assert code_at(SECRET, seconds // STEP) == code[-6:]
