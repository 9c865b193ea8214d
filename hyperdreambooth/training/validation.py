"""How good a hypernetwork is on people it was never trained on, by judges that take no part in training."""

import numpy as np
import torch
from PIL import Image

from hyperdreambooth.attach import attach
from hyperdreambooth.config import PersonalizeConfig
from hyperdreambooth.diffusion import BaseModel, sample
from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.hypernetwork import Hypernetwork
from hyperdreambooth.identity import IdentityEmbedder
from hyperdreambooth.recipes.sheets import sheet_of
from hyperdreambooth.training.pictures import Pictures

ROUNDS = 2  # pictures of each person


class Validation:
    """Draws held-out people with their predicted weights and asks YuNet and SFace about them."""

    def __init__(self, base_model: BaseModel, wishes: PersonalizeConfig, pictures: Pictures, held_out: slice) -> None:
        self._base_model, self._wishes, self._pictures = base_model, wishes, pictures
        self._rows = [rows[0] for rows in pictures.rows_of(held_out)]
        self._detector, self._embedder = FaceDetector(), IdentityEmbedder()
        self._references = [pictures.image(row) for row in self._rows]

    @torch.no_grad()
    def __call__(self, hypernetwork: Hypernetwork) -> tuple[dict[str, float], Image.Image]:
        """Share with a face, mean cosine to the own photo (no face: 0), share whose own photo is nearest; a sheet."""
        count = len(self._rows)
        lidb = hypernetwork(self._pictures.latent_rows(self._rows).to(self._base_model.device))
        prompts = [self._wishes.fill_prompt(self._wishes.instance_prompt)] * count
        drawn: list[Image.Image] = []
        with attach(self._base_model, lidb, subject_of_sample=torch.arange(count, device=self._base_model.device)):
            for turn in range(ROUNDS):
                seeds = range(turn * count, (turn + 1) * count)
                drawn += sample(self._base_model, prompts, seeds=seeds, config=self._wishes.sample)
        references = [image.resize(drawn[0].size) for image in self._references]
        return self._judge(drawn), sheet_of([*references, *drawn], columns=count, enlarge=1)

    def _judge(self, drawn: list[Image.Image]) -> dict[str, float]:
        photos = [self._embedder(photo, self._detector) for photo in self._references]
        found, cosines, hits = 0, [], 0
        for place, picture in enumerate(drawn):
            embedding = self._embedder(picture, self._detector)
            if embedding is None:
                continue
            found += 1
            alike = [-1.0 if photo is None else float(photo @ embedding) for photo in photos]
            own = place % len(photos)
            cosines.append(alike[own])
            hits += int(np.argmax(alike)) == own
        return {
            "face_found": found / len(drawn),
            "identity_sface": sum(cosines) / len(drawn),
            "top1_sface": hits / len(drawn),
        }
