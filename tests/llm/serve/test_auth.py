from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.errors import UsageError
from mindset.llm.serve.auth import Gate, is_loopback
from mindset.llm.serve.errors import RefusedError

TOKEN = "a-token-of-many-letters"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("0.0.0.0", False),  # noqa: S104
     ("::", False), ("192.168.1.5", False), ("example.org", False), ("", False), ("localhost.example.org", False)],
)  # fmt: skip
def test_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@settings(max_examples=40, deadline=None)
@given(shown=st.text(max_size=60))
def test_nothing_but_the_token_is_the_token(shown: str) -> None:
    gate = Gate(TOKEN)
    for header in (shown, f"Bearer {shown}", f"Basic {TOKEN}", f"Bearer {TOKEN}{shown}x"):
        if header.partition(" ")[2].strip() == TOKEN and header.lower().startswith("bearer "):
            continue
        with pytest.raises(RefusedError) as found:
            gate.check_token(header)
        assert found.value.status == 401
        assert TOKEN not in str(found.value)
    gate.check_token(f"Bearer {TOKEN}")
    gate.check_token(f"BEARER {TOKEN} ")


@settings(max_examples=100, deadline=None)
@given(host=st.text(max_size=40))
def test_no_name_but_this_machines_passes(host: str) -> None:
    name = host.lower().rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host.lower()
    if name.rstrip(":") in ("localhost", "127.0.0.1", "[::1]"):
        return
    with pytest.raises(RefusedError) as found:
        Gate().check_host([host])
    assert found.value.status == 403


def test_the_name_that_it_is_bound_to_passes() -> None:
    Gate(host="127.0.0.2").check_host(["127.0.0.2:80"])
    with pytest.raises(RefusedError):
        Gate().check_host(["127.0.0.2:80"])
    for hosts in ([], ["localhost", "localhost"]):
        with pytest.raises(RefusedError) as found:
            Gate().check_host(hosts)
        assert found.value.status == 400


def test_origins() -> None:
    gate = Gate(origins=("https://page.example", "http://localhost:3000"))
    gate.check_origin([], ["localhost"])
    gate.check_origin(["https://page.example"], ["localhost"])
    gate.check_origin(["http://localhost:8080"], ["localhost:8080"])
    for origin in ("https://page.example.evil", "http://page.example", "null", "", "http://localhost:1"):
        with pytest.raises(RefusedError):
            gate.check_origin([origin], ["localhost:8080"])
    assert Gate(TOKEN, origins=("*",)).allows("https://any.example")
    for wrong in ("page.example", "https://page.example/", "https://", "https://x:y", "javascript:1", "*"):
        with pytest.raises(UsageError):
            Gate(origins=(wrong,))
