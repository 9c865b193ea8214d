"""Posting to a stranger's address: bad receivers are survived, private addresses never reached."""

import socket
import time

import pytest

from tests.worker.receiver import receiver
from worker.webhook_client import post


def test_a_private_receiver_is_never_reached() -> None:
    with receiver() as told:
        answer = post(told.url, {}, b"{}", allow_private=False)
    assert answer.status is None
    assert "not a public address" in str(answer.error)
    assert told.messages == []


def test_a_name_that_leads_inside_is_refused_however_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def rebound(host: str, port: int, **_: object) -> list[object]:
        kinds = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kinds, ("93.184.216.34", port)), (*kinds, ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    answer = post("http://rebinding.example/", {}, b"{}", allow_private=False)
    assert answer.status is None
    assert "not a public address" in str(answer.error)


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = socket.getaddrinfo, []

    def counting(host: str, port: int, *_: object, **__: object) -> object:
        asked.append(host)
        return real("127.0.0.1", port, type=socket.SOCK_STREAM)

    with receiver() as told:
        monkeypatch.setattr(socket, "getaddrinfo", counting)
        answer = post(told.url.replace("127.0.0.1", "receiver.example"), {}, b"{}", allow_private=True)
    assert answer.status == 200
    # Once by name, to check; the second look-up is of the checked address itself.
    assert asked.count("receiver.example") == 1
    assert told.messages[0][0]["host"].startswith("receiver.example")


def test_a_redirect_is_an_error_and_is_not_followed() -> None:
    with receiver() as elsewhere, receiver() as told:
        told.status, told.location = 302, elsewhere.url
        answer = post(told.url, {}, b"{}", allow_private=True)
    assert (answer.status, answer.error) == (302, "the receiver answered 302")
    assert elsewhere.messages == []


def test_a_receiver_that_drips_is_cut_off_at_the_deadline() -> None:
    with receiver() as told:
        told.behaviour = "drip"
        began = time.monotonic()
        answer = post(told.url, {}, b"{}", allow_private=True, seconds=1)
    assert answer.status is None
    assert "Timeout" in str(answer.error)
    assert time.monotonic() - began < 5


def test_an_endless_answer_is_not_read() -> None:
    with receiver() as told:
        told.behaviour = "flood"
        assert post(told.url, {}, b"{}", allow_private=True, seconds=5).status == 200


def test_the_beginning_of_a_body_does_not_count_as_headers() -> None:
    with receiver() as told:
        told.behaviour = "pause"
        assert post(told.url, {}, b"{}", allow_private=True, seconds=5).status == 200


def test_more_than_64_kb_of_headers_are_an_error() -> None:
    with receiver() as told:
        told.behaviour = "chat"
        answer = post(told.url, {}, b"{}", allow_private=True, seconds=5)
    assert (answer.status, answer.error) == (None, "ReadError: the receiver answered more than 64 kB")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "ftp://receiver.example/", "http:///nowhere"])
def test_what_can_not_be_reached_is_an_answer_too(url: str) -> None:
    assert post(url, {}, b"{}", allow_private=True, seconds=2).status is None


def test_a_receiver_that_hangs_up_is_an_answer_too() -> None:
    with receiver() as told:
        told.behaviour = "hang up"
        assert post(told.url, {}, b"{}", allow_private=True, seconds=2).status is None
