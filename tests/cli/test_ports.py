"""Ports: free ones silently, an explicit one or none."""

import socket
from collections.abc import Iterator

import pytest

from cli.errors import StackError
from cli.ports import free_ports, is_free, next_free
from cli.stack import choose_port
from core.settings import Settings


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_free(port) for port in ports)


def test_the_next_free_port_is_not_the_taken_one(taken: int) -> None:
    assert next_free(taken) > taken


def test_a_taken_port_that_was_asked_for_is_an_error_that_names_it(taken: int) -> None:
    with pytest.raises(StackError, match=f"Port {taken} is taken") as refused:
        choose_port(Settings(), taken, print)
    assert "--port" in str(refused.value.hint)


def test_a_taken_port_in_the_settings_was_asked_for_too(taken: int) -> None:
    with pytest.raises(StackError, match=f"Port {taken} is taken"):
        choose_port(Settings(api_port=taken), None, print)


def test_the_default_port_gives_way_and_says_so(taken: int) -> None:
    said = list[str]()
    by_default = Settings().model_copy(update={"api_port": taken})
    by_default.__pydantic_fields_set__.discard("api_port")
    port = choose_port(by_default, None, said.append)
    assert port != taken
    assert said == [f"port {taken} is taken: using {port}"]
