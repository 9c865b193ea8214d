import pytest

from worker.backoff import retried, waits


def test_pauses_double_and_stay_within_the_total() -> None:
    assert list(waits(first_seconds=1, total_seconds=8)) == [1, 2, 4]
    assert list(waits(first_seconds=1, total_seconds=0.5)) == []


def test_a_call_is_tried_again_until_it_works() -> None:
    answers, paused = [KeyError(), KeyError(), "yes"], list[float]()

    def call() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert retried(call, on=KeyError, pauses=iter([1.0, 2.0, 4.0]), pause=paused.append) == "yes"
    assert paused == [1, 2]


def test_the_last_error_is_ours_and_others_are_at_once() -> None:
    def call() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        retried(call, on=KeyError, pauses=iter([1.0]), pause=lambda seconds: None)
    paused = list[float]()
    with pytest.raises(KeyError):
        retried(call, on=ValueError, pauses=iter([1.0]), pause=paused.append)
    assert paused == []
