"""How good people's weights are, by judges that take no part in training: drawn, looked at, and put on a sheet."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hyperdreambooth.attach import attach
from hyperdreambooth.config import PersonalizeConfig
from hyperdreambooth.diffusion import BaseModel, sample
from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.identity import IdentityEmbedder
from hyperdreambooth.lidb import LiDB
from hyperdreambooth.recipes.sheets import sheet_of
from hyperdreambooth.training.pictures import Pictures

REFERENCE_SIZE = 224  # side of the photos that judges and sheets see
ROUNDS = 2  # pictures of each person


class Validation:
    """Some people's photos, beside which YuNet and SFace judge pictures of them: dlib stays the tables' own judge."""

    def __init__(self, base_model: BaseModel, wishes: PersonalizeConfig, pictures: Pictures, people: slice) -> None:
        self._base_model, self._wishes = base_model, wishes
        self._detector, self._embedder = FaceDetector(), IdentityEmbedder()
        rows = [own[0] for own in pictures.rows_of(people)]
        self._photos = [pictures.image(row) for row in rows]
        self.latents: Tensor = pictures.latent_rows(rows).to(base_model.device)  # of each person's first photo

    @torch.no_grad()
    def __call__(self, lidb: LiDB) -> tuple[dict[str, float], Image.Image]:
        """Share with a face, mean cosine to the own photo (no face: 0), share whose own photo is nearest; a sheet."""
        count = len(self._photos)
        prompts = [self._wishes.fill_prompt(self._wishes.instance_prompt)] * count
        drawn: list[Image.Image] = []
        with attach(self._base_model, lidb, subject_of_sample=torch.arange(count, device=self._base_model.device)):
            for turn in range(ROUNDS):
                seeds = range(turn * count, (turn + 1) * count)
                drawn += sample(self._base_model, prompts, seeds=seeds, config=self._wishes.sample)
        photos = [photo.resize(drawn[0].size) for photo in self._photos]
        return self._judge(drawn), sheet_of([*photos, *drawn], columns=count, enlarge=1)

    def _judge(self, drawn: list[Image.Image]) -> dict[str, float]:
        photos = [self._embedder(photo, self._detector) for photo in self._photos]
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
