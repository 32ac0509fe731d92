"""Join tokens: what they name, and what is none."""

import pytest

from slapos.protocol.join_token import JoinToken, MalformedToken

FINGERPRINT = "0123456789abcdef" * 4


def test_a_token_names_the_authority_by_half_of_its_fingerprint() -> None:
    token = JoinToken.compose("s" * 32, FINGERPRINT)
    assert token.text == f"sj1.{'s' * 32}.{FINGERPRINT[:32]}"
    assert JoinToken.parse(f" {token.text}\n") == token
    assert token.is_of(FINGERPRINT)
    assert not token.is_of("f" * 64)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sj1.secretsecretsecret",
        "sj2.secretsecretsecret." + "0" * 32,
        "sj1.short." + "0" * 32,
        "sj1.secretsecretsecret." + "0" * 31,
        "sj1.secretsecretsecret." + "0" * 33,
        "sj1.secret secret." + "0" * 32,
    ],
)
def test_what_is_no_token_is_said_to_be_none_without_repeating_it(text: str) -> None:
    with pytest.raises(MalformedToken, match="no join token") as raised:
        JoinToken.parse(text)
    assert not text or text not in str(raised.value)


def test_a_token_is_not_shown_by_accident() -> None:
    assert "ssss" not in repr(JoinToken.compose("s" * 32, FINGERPRINT))
