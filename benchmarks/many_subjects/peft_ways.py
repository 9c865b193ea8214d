"""What diffusers and peft offer for many subjects. Each gets the same folded adapters, noise, prompts and scheduler."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from peft.tuners.lora import LoraLayer
from peft.utils.hotswap import hotswap_adapter_from_state_dict
from PIL import Image
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from benchmarks.many_subjects.orders import Order
from benchmarks.many_subjects.peft_training import train_lora
from benchmarks.many_subjects.settings import Method, Task
from benchmarks.many_subjects.ways import Numbers, Switch, Way
from hyperdreambooth.lora_export import TEXT_PREFIX, LoraFormat, to_lora
from hyperdreambooth.personalize import Networks

NAME = "subject"
NETWORKS = ("unet", "text_encoder")
StateDict = dict[str, Tensor]


class WithPipeline(Way):
    """diffusers' pipeline over the same networks."""

    tasks: ClassVar[Sequence[Task]] = (Task.GENERATE,)

    def __init__(self, networks: Networks) -> None:
        super().__init__(networks)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers
        diffusers_logging.set_verbosity_error()
        base_model = networks.base_model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it wants a field that this scheduler's spacing ignores
            pipeline: Any = StableDiffusionPipeline(  # type: ignore[no-untyped-call]  # diffusers
                vae=base_model.vae,
                text_encoder=base_model.text_encoder,
                tokenizer=base_model.tokenizer,
                unet=base_model.unet,
                scheduler=type(base_model.scheduler).from_config(base_model.scheduler.config),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline
        self.loras: dict[int, StateDict] = {}

    def prepare(self, subjects: Sequence[int]) -> None:
        """LoRA files read, in the model's dtype and on its device."""
        super().prepare(subjects)
        networks, base_model = self.networks, self.networks.base_model
        for subject in set(subjects) - set(self.loras):
            content = safetensors.torch.load(
                to_lora(self.adapters[subject], LoraFormat.DIFFUSERS, networks.basis.learned)
            )
            self.loras[subject] = {
                name: tensor.to(base_model.device, base_model.dtype) for name, tensor in content.items()
            }

    def draw(self, orders: Sequence[Order]) -> list[Image.Image]:
        """One call of the pipeline, from the noise that `sample` starts from."""
        base_model, config = self.networks.base_model, self.networks.config.sample
        shape = base_model.latent_shape
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(order.seed)) for order in orders]
        images: list[Image.Image] = self.pipeline(
            self.filled(orders),
            negative_prompt=[config.negative_prompt] * len(orders),
            num_inference_steps=config.steps,
            guidance_scale=config.guidance,
            latents=torch.stack(noise).to(base_model.device, base_model.dtype),
        ).images
        return images


class PeftLoop(WithPipeline):
    """Load a subject's LoRA, draw all that is wanted of it, unload; then the next subject."""

    tasks: ClassVar[Sequence[Task]] = tuple(Task)

    def personalize(self, subjects: Sequence[int]) -> list[Numbers]:
        trained = (train_lora(self.networks, self.faces([subject])[0], seed=subject) for subject in subjects)
        return [np.asarray(numbers) for numbers in trained]

    def generate(self, orders: Sequence[Order]) -> list[Image.Image]:
        images: dict[int, Image.Image] = {}
        by_subject = sorted(range(len(orders)), key=lambda row: orders[row].subject)
        for subject, places in groupby(by_subject, key=lambda row: orders[row].subject):
            own = list(places)
            with self.switched(subject):
                images |= zip(own, self.draw([orders[row] for row in own]), strict=True)
        return [images[row] for row in range(len(orders))]

    def switches(self) -> Mapping[str, Switch]:
        return {"": self.switched}

    @contextmanager
    def switched(self, subject: int) -> Iterator[None]:
        self.pipeline.load_lora_weights(self.loras[subject], adapter_name=NAME)
        try:
            yield
        finally:
            self.pipeline.unload_lora_weights()


class Merged(PeftLoop):
    """The same, with the LoRA added to the weights while its subject is drawn."""

    tasks: ClassVar[Sequence[Task]] = (Task.GENERATE,)

    @contextmanager
    def switched(self, subject: int) -> Iterator[None]:
        with super().switched(subject):
            self.pipeline.fuse_lora(components=list(NETWORKS))
            try:
                yield
            finally:
                self.pipeline.unfuse_lora(components=list(NETWORKS))


class Hotswap(PeftLoop):
    """LoRA layers that stay; a subject's numbers are copied over the last one's."""

    tasks: ClassVar[Sequence[Task]] = (Task.GENERATE,)

    @contextmanager
    def switched(self, subject: int) -> Iterator[None]:
        lora, text_encoder = self.loras[subject], self.pipeline.text_encoder
        if NAME not in getattr(self.pipeline.unet, "peft_config", {}):
            self.pipeline.enable_lora_hotswap(target_rank=self.networks.config.finetune.rank)
            # What is loaded first becomes the layers' own memory, which the next subject is copied into.
            own = {name: tensor.clone() for name, tensor in lora.items()}
            self.pipeline.load_lora_weights(own, adapter_name=NAME)
        else:
            unet_alone = {name: tensor for name, tensor in lora.items() if name.startswith("unet.")}
            self.pipeline.load_lora_weights(unet_alone, adapter_name=NAME, hotswap=True)
            if texts := text_names(lora):  # diffusers refuses to swap a text encoder's, so peft is asked directly
                hotswap_adapter_from_state_dict(text_encoder, texts, NAME, text_encoder.peft_config[NAME])
        yield


class PeftMixed(WithPipeline):
    """All subjects' LoRAs in the model at once; each layer splits the batch by adapter and adds them up."""

    def prepare(self, subjects: Sequence[int]) -> None:
        super().prepare(subjects)
        loaded = getattr(self.pipeline.unet, "peft_config", {})
        for subject in sorted(set(subjects)):
            if name_of(subject) not in loaded:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # that there will be several adapters is the point
                    self.pipeline.load_lora_weights(self.loras[subject], adapter_name=name_of(subject))
                loaded = self.pipeline.unet.peft_config

    def generate(self, orders: Sequence[Order]) -> list[Image.Image]:
        hook = partial(_name_adapters, [name_of(order.subject) for order in orders])
        layers = [
            layer
            for network in NETWORKS
            for layer in getattr(self.pipeline, network).modules()
            if isinstance(layer, LoraLayer)
        ]
        hooks = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers]  # type: ignore[attr-defined]  # each is a Module too
        try:
            return self.draw(orders)
        finally:
            for handle in hooks:
                handle.remove()


def _name_adapters(
    names: Sequence[str], layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """peft's own argument; guidance's doubled batch names everybody twice."""
    return args, kwargs | {"adapter_names": [*names] * (len(args[0]) // len(names))}


def name_of(subject: int) -> str:
    return f"{NAME}{subject}"


def text_names(lora: StateDict) -> StateDict:
    """The text encoder's part, by the names of its parameters."""
    prefix = f"text_encoder.{TEXT_PREFIX}"
    return {
        name.removeprefix(prefix).replace(".weight", f".{NAME}.weight"): tensor
        for name, tensor in lora.items()
        if name.startswith(prefix)
    }


PEFT_WAYS: Mapping[Method, type[WithPipeline]] = {
    Method.PEFT_LOOP: PeftLoop,
    Method.PEFT_MIXED: PeftMixed,
    Method.HOTSWAP: Hotswap,
    Method.MERGED: Merged,
}
