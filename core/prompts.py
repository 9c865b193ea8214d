"""What a prompt may hold. Pure; the worker counts tokens, since only it has the tokenizer."""

import re
import unicodedata

from core.errors import PromptRejected
from core.schemas import MAX_PROMPT_CHARACTERS

SUBJECT = "{subject}"
# Ways in which other tools smuggle weights or options into a prompt. Here those are fields.
INLINE_SYNTAX = {
    "a <...:...> weight tag": re.compile(r"<\s*\w+\s*:[^>]*>"),
    "a --flag": re.compile(r"(?:^|\s)--\w"),
    "a __wildcard__": re.compile(r"__[\w/*-]+__"),
}


def clean_prompt(text: str) -> str:
    """The prompt as it is stored, or PromptRejected."""
    prompt = unicodedata.normalize("NFKC", text).strip()
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise PromptRejected(f"A prompt has at most {MAX_PROMPT_CHARACTERS} characters; this one has {len(prompt)}.")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in prompt):
        raise PromptRejected("A prompt holds no control characters or line breaks.")
    for what, pattern in INLINE_SYNTAX.items():
        if pattern.search(prompt):
            raise PromptRejected(f"A prompt may not hold {what}: weights and options have fields of their own.")
    return prompt


def clean_subject_prompt(text: str) -> str:
    """The same, and the person is in it: put in front where the caller left them out."""
    prompt = clean_prompt(text)
    if not prompt:
        raise PromptRejected("The prompt is empty.")
    return prompt if SUBJECT in prompt else f"{SUBJECT}, {prompt}"
