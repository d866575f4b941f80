"""`--bind`: what it may say, and the address that is shown for it."""

import pytest

from quart_app import binding

SHOWN = {
    "127.0.0.1:0": "http://127.0.0.1:",
    ":0": "http://127.0.0.1:",
    "localhost:0": "http://127.0.0.1:",
    "0.0.0.0:0": "http://127.0.0.1:",
    "[::1]:0": "http://[::1]:",
    "[::]:0": "http://[::1]:",
}


@pytest.mark.parametrize("bind", SHOWN)
def test_the_address_is_one_that_a_browser_here_can_open(bind: str) -> None:
    with binding.listen(bind) as sock:
        assert binding.address(sock) == f"{SHOWN[bind]}{sock.getsockname()[1]}"


@pytest.mark.parametrize("bind", ["", "8000 ", "here", "a:b", "1.2.3.4:99999", "127.0.0.1:-1"])
def test_anything_else_is_refused_with_what_is_expected(bind: str) -> None:
    with pytest.raises(binding.BadAddress, match=r"expected HOST:PORT, such as 127.0.0.1:8000$"):
        binding.listen(bind)


@pytest.mark.parametrize("bind", ["nowhere.invalid:0", "203.0.113.1:0", "a..b:0"])
def test_an_address_that_is_not_ours_is_named(bind: str) -> None:
    with pytest.raises(binding.BadAddress, match=f"^--bind {bind}: .+; choose another"):
        binding.listen(bind)


def test_a_port_in_use_is_named() -> None:
    with binding.listen(":0") as sock:
        bind = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(binding.BadAddress, match="Address already in use; choose another"):
            binding.listen(bind)


@pytest.mark.parametrize(("bind", "is_loopback"), [("[::1]:0", True), ("0.0.0.0:0", False)])
def test_only_this_machine_counts_as_loopback(bind: str, is_loopback: bool) -> None:
    with binding.listen(bind) as sock:
        assert binding.is_loopback(sock) is is_loopback
