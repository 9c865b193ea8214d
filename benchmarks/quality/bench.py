"""What all rows share: the networks, the people, the questions, and what is drawn once for everybody."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.quality.people import TABLE, Person, draw_people, true_picture
from benchmarks.quality.questions import OTHERS_SEED, Question, other_prompts, questions
from benchmarks.quality.settings import Settings
from hyperdreambooth.baselines.budgets import DREAMBOOTH
from hyperdreambooth.baselines.svdiff import Spectrum, spectra
from hyperdreambooth.baselines.training import ClassImages, Example, draw_class_images
from hyperdreambooth.diffusion import BaseModel, encode_images, sample
from hyperdreambooth.hypernetwork import FOLDER, hypernetwork_hash, load_hypernetwork
from hyperdreambooth.personalize import Networks, load_networks
from hyperdreambooth.portraits.head import Head

CLASS_SEED = 500_000


class Bench:
    """Loaded once; everything that only some rows need is made when the first of them asks."""

    def __init__(self, settings: Settings, *, first_person: int = TABLE) -> None:
        self.settings = settings
        self.networks: Networks = load_networks(settings.base_model, device=self.device, dtype=torch.float32)
        self.head = Head.load(cache=settings.work / "head")
        self.people: list[Person] = draw_people(
            self.head,
            self.networks.face_detector,
            count=settings.identities,
            first=first_person,
            seed=settings.seed,
            size=self.size,
        )
        self.asked: list[Question] = questions(photos=settings.photos)
        self._true_pictures: dict[int, list[Image.Image]] = {}

    @property
    def device(self) -> torch.device:
        return torch.device(self.settings.device)

    @property
    def base_model(self) -> BaseModel:
        return self.networks.base_model

    @cached_property
    def other_networks(self) -> dict[str, Networks]:
        """The same base model with other hypernetworks, by the names they were given."""
        own = self.networks
        folders = {name: folder / FOLDER for name, folder in self.settings.hypernetworks}
        return {
            name: replace(
                own, hypernetwork=load_hypernetwork(folder, own.basis), hypernetwork_hash=hypernetwork_hash(folder)
            )
            for name, folder in folders.items()
        }

    @property
    def size(self) -> int:
        return self.base_model.resolution

    @property
    def folder(self) -> Path:
        """Of what depends on the base model's weights."""
        return self.settings.work / self.base_model.weights_hash[:12]

    @property
    def other_seeds(self) -> range:
        return range(OTHERS_SEED, OTHERS_SEED + len(self.other_prompts))

    @cached_property
    def other_prompts(self) -> list[str]:
        return other_prompts(self.head)

    @cached_property
    def others(self) -> list[Image.Image]:
        """Other people as the base model draws them when nobody is attached."""
        config = self.networks.config.sample
        return sample(self.base_model, self.other_prompts, seeds=self.other_seeds, config=config)

    @cached_property
    def spectra(self) -> dict[str, Spectrum]:
        return spectra(self.base_model)

    @cached_property
    def class_images(self) -> ClassImages:
        """For prior preservation; drawn once for each base model, and kept."""
        count, config = self.limited(DREAMBOOTH.prior_images), self.networks.config
        path = self.folder / f"class-images-{count}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn = draw_class_images(self.base_model, config, count=count, seed=CLASS_SEED)
            np.save(path, drawn.latents.cpu().numpy())
        prompt = config.instance_prompt.replace("{subject}", config.class_noun)
        return ClassImages(torch.from_numpy(np.load(path)).to(self.device), prompt)

    def limited(self, count: int) -> int:
        """Iterations, or pictures drawn beforehand: fewer where a run only checks that all works."""
        return count if self.settings.finetune_steps is None else min(count, self.settings.finetune_steps)

    def true_pictures(self, own: int) -> list[Image.Image]:
        """Another view for each question, in the style that it asks for. Three rows want them: they are kept."""
        if own not in self._true_pictures:
            who = self.people[own].seed
            self._true_pictures[own] = [
                true_picture(self.head, who, view=1 + question.number, style=question.style, size=self.size)
                for question in self.asked
            ]
        return self._true_pictures[own]

    def example(self, person: Person) -> Example:
        """What the baselines are trained on; the generator is the person's own."""
        latents = encode_images(self.base_model, [person.portrait])
        return Example(latents, self.networks.config.instance_prompt, torch.Generator().manual_seed(person.seed))
