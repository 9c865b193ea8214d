import pytest

from core.errors import PromptRejected
from core.prompts import clean_prompt, clean_subject_prompt


def test_the_person_is_put_in_front_when_absent() -> None:
    assert clean_subject_prompt(" a pixel portrait ") == "{subject}, a pixel portrait"
    assert clean_subject_prompt("a portrait of {subject}") == "a portrait of {subject}"


def test_letters_that_look_alike_become_the_same() -> None:
    assert clean_prompt("ﬁlm ｎｏｉｒ") == "film noir"


@pytest.mark.parametrize(
    "prompt",
    ["<lora:x:1>", "a < hypernet : y >", "a --ar 2:1", "__colour__", "a\nb", "a\x00b", "\ud800", "x" * 1001],
)
def test_what_no_prompt_may_hold_is_refused(prompt: str) -> None:
    with pytest.raises(PromptRejected):
        clean_prompt(prompt)


@pytest.mark.parametrize("prompt", ["", "   ", "\u3000"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(PromptRejected):
        clean_subject_prompt(prompt)


@pytest.mark.parametrize("prompt", ["well-known -- or not", "a <3 b", "snake_case", "café, naïve, 東京", "a-b--c"])
def test_ordinary_punctuation_is_welcome(prompt: str) -> None:
    assert clean_prompt(prompt) == prompt
