"""Fit a LiDB to each of many people: `hdb train fit BASE_MODEL PICTURES`, targets for the weight-space loss."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hyperdreambooth.attach import aux_basis
from hyperdreambooth.bank import flatten, unflatten
from hyperdreambooth.basis import load_learned
from hyperdreambooth.config import load_personalize_config
from hyperdreambooth.diffusion import base_model_folder, load_base_model
from hyperdreambooth.fitting import fit_together
from hyperdreambooth.lidb import AuxBasis, LiDB
from hyperdreambooth.recipes.progress import Progress
from hyperdreambooth.training.config import FitRunConfig
from hyperdreambooth.training.pictures import prepare_pictures
from hyperdreambooth.training.run import open_folder, show_sheet
from hyperdreambooth.training.validation import REFERENCE_SIZE, Validation

FOLDER = "fitted"


def main(config: FitRunConfig) -> None:
    """Fit everybody, a batch at a time; a batch that is on the disk is not fitted again. Processes take turns."""
    accelerator = open_folder(config)
    base_model = load_base_model(config.base_model, device=accelerator.device, dtype=torch.float32)
    folder = base_model_folder(config.base_model)
    wishes = load_personalize_config(folder)
    size = min(base_model.resolution, REFERENCE_SIZE)
    with accelerator.main_process_first():
        pictures = prepare_pictures(config.pictures, base_model, config.folder / "cache", size=size, faces=True)
    basis = aux_basis(base_model, wishes.lidb, load_learned(folder))
    starts = range(0, len(pictures.people), config.batch)
    mine = starts[accelerator.process_index :: accelerator.num_processes]
    progress = Progress("fit", total=len(mine), unit="batches", every=5)
    (config.folder / FOLDER).mkdir(exist_ok=True)
    for number, start in enumerate(mine):
        path = config.folder / FOLDER / f"{start:07d}.safetensors"
        if not path.exists():
            people = slice(start, start + config.batch)
            with accelerator.autocast():
                rows = [pictures.latent_rows(list(own)).to(base_model.device) for own in pictures.rows_of(people)]
                fitted = fit_together(base_model, basis, rows, wishes, config.finetune, seed=config.seed)
            _store(fitted, [name for name, _ in pictures.people[people]], path)
            if number % config.show_every == 0 and accelerator.is_main_process:
                figures, sheet = Validation(base_model, wishes, pictures, people)(fitted)
                accelerator.log(figures, step=start)
                show_sheet(accelerator, config.folder, "fitted", sheet, step=start)
        progress.advance()
    accelerator.wait_for_everyone()
    accelerator.end_training()


def load_fitted(folder: Path) -> dict[str, torch.Tensor]:
    """Each person's numbers: A_train and B_train side by side, [r * (total_a + total_b)]."""
    fitted: dict[str, torch.Tensor] = {}
    for path in sorted((folder / FOLDER).glob("*.safetensors")):
        fitted |= load_file(path)
    return fitted


def fitted_lidb(numbers: Sequence[torch.Tensor] | torch.Tensor, basis: AuxBasis) -> LiDB:
    """What `bank.flatten` made of some people's train matrices, of whatever rank."""
    stacked = torch.stack([*numbers]).to(basis.device, basis.dtype)
    rank = stacked.shape[1] // (basis.table.total_a + basis.table.total_b)
    shapes = ((1, rank, total) for total in (basis.table.total_a, basis.table.total_b))
    return unflatten(stacked, LiDB(basis, *map(stacked.new_empty, shapes)))


def _store(fitted: LiDB, names: list[str], path: Path) -> None:
    numbers = flatten(fitted).float().cpu()
    aside = path.with_suffix(".part")
    save_file({name: row.clone() for name, row in zip(names, numbers, strict=True)}, aside)
    aside.replace(path)
