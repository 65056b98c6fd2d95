"""Images that a network makes itself as work for a run: autoencoders, variational ones, and two players."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groundup.contract import Objective, Source
from groundup.data.chat_rows import SetAside
from groundup.data.image_options import ImageOptions
from groundup.data.image_set import ImagePart, ImageSet, read_images
from groundup.data.image_stream import ImageStream, image_batches
from groundup.data.labelled_options import Side
from groundup.evaluation.generated import likelihood_bounds
from groundup.evaluation.metrics import ImageScores
from groundup.functional import evaluating
from groundup.objectives.adversarial import Adversarial, AdversarialOptions
from groundup.objectives.reconstruct import VaeOptions, binarised
from groundup.recipe.tree import ImageData, Recipe
from groundup.run.answers import ROWS_AT_ONCE
from groundup.run.cards import write_card, write_quarantine
from groundup.run.measuring import FIRST_ROWS, evaluation_of
from groundup.run.network_work import NetworkWork, begin, require_whole_batches
from groundup.run.prediction import image_network, room_options
from groundup.run.results import Scores
from groundup.run.work import Say

SHOWN = 64
"""Images that a finished network makes for the report."""


@dataclass(kw_only=True)
class GenerationWork(NetworkWork):
    """A set of images, and a network that makes such images."""

    images: ImageSet
    say: Say = print

    def source(self) -> Source:
        """A fresh training stream."""
        assert isinstance(self.recipe.data, ImageData)
        return ImageStream(
            self.images.part("train"),
            self.images.preparation,
            rows=self.recipe.budget.micro_batch or 1,
            seed=self.recipe.seed,
            balanced=self.recipe.data.balanced,
            augment=self.recipe.data.augment,
        )

    @property
    def rows_per_epoch(self) -> int:
        """Training images."""
        return len(self.images.part("train").index)

    def objective(self, model: nn.Module) -> Objective:
        """The objective that the recipe names; two players are watched for a collapse."""
        options = self.recipe.objective
        if isinstance(options, AdversarialOptions):
            return Adversarial(options, model, self._warn)  # type: ignore[arg-type]
        return super().objective(model)

    def _warn(self, kind: str, step: int, detail: dict[str, Any]) -> None:
        self.say(f"warning at step {step}: {kind}: the images that are made are all alike, {detail}")

    def example(self) -> Tensor:
        """One image; what two players are called with is one too, for the critic."""
        return torch.zeros(1, *self.said.shape, device=self.device)

    def flops_per_unit(self, model: nn.Module) -> float:
        """Of one image; of two players nothing is counted."""
        return 0.0 if self.said.family == "gan" else super().flops_per_unit(model)

    @property
    def measured(self) -> Side:
        """The side that the closing evaluation is made on."""
        return "test" if len(self.images.part("test").index) else "validation"

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """The validation images; two players have no number that says how well they do."""
        scores = self._scores(model, self.images.part("validation"))
        if scores is None:
            return {}
        names = self.metric_names(scores)
        found = evaluation_of(scores, names)
        for values in found.values():
            values["loss"] = values.pop(names[0])
        return {"validation": found}

    def score(self, model: nn.Module, *, final: bool) -> Scores:
        """The images of the measured side."""
        part = self.images.part(self.measured)
        if not final:
            part = ImagePart(part.images, part.index[:FIRST_ROWS], part.answers)
        scores = self._scores(model, part)
        return Scores({} if scores is None else {self.measured: scores}, partial=not final)

    def metric_names(self, scores: Any) -> Sequence[str]:
        """The bound of a variational autoencoder, the error of a plain one."""
        return ("negative_bound", "pixel_error") if self.said.family == "vae" else ("pixel_error",)

    def _scores(self, model: Any, part: ImagePart) -> ImageScores | None:
        if self.said.family == "gan" or not len(part.index):
            return None
        nats, errors = [], []
        generator = torch.Generator().manual_seed(self.recipe.seed)
        with torch.inference_mode(), evaluating(model):
            for batch, _ in image_batches(part, self.images.preparation, rows=ROWS_AT_ONCE):
                images = self._seen(batch["image_BCHW"].to(self.device))
                errors.append((model(images) - images).square().flatten(1).mean(dim=1).cpu())
                if self.said.family == "vae":
                    bounds = likelihood_bounds(model.encode, model.decode, images, samples=1, generator=generator)
                    nats.append(bounds.negative_elbo_N)
        error_N = torch.cat(errors).double().numpy()
        return ImageScores(np.concatenate(nats) if nats else np.zeros_like(error_N), error_N)

    def _seen(self, image_BCHW: Tensor) -> Tensor:
        """Images as the objective sees them, without anything drawn."""
        options = self.recipe.objective
        if isinstance(options, VaeOptions) and options.binarise != "none":
            return binarised(image_BCHW, "threshold")
        return image_BCHW

    @torch.inference_mode()
    def results(self, model: Any) -> dict[str, Any]:
        """Images that the network makes, as bytes (N, H, W, C), for the report."""
        if self.said.family == "autoencoder":
            part = self.images.part(self.measured)
            batch, _ = next(iter(image_batches(part, self.images.preparation, rows=SHOWN)), ({}, None))
            if not batch:
                return {}
            with evaluating(model):
                made = model(batch["image_BCHW"].to(self.device))
        else:
            made = model.sample(SHOWN, torch.Generator().manual_seed(self.recipe.seed))
        pixels = (made.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return {"made_images": {"shape": list(pixels.shape), "bytes": pixels.cpu().numpy().tobytes().hex()}}


def generation_work(recipe: Recipe, folder: Path, *, say: Say) -> GenerationWork:
    """Read the images and fill in every number that does not need a measurement of speed."""
    begun = begin(recipe)
    data = begun.recipe.data
    assert isinstance(data, ImageData)
    if "normalise" not in data.model_fields_set:  # what is made are pixels from 0 to 1
        data = data.model_copy(update={"normalise": "unit"})
        begun = begun._replace(recipe=begun.recipe.model_copy(update={"data": data}))
    aside: list[SetAside] = []
    try:
        images = read_images(room_options(data, ImageOptions), aside, folder / "data")
    finally:
        write_quarantine(folder / "data", aside)
    write_card(folder / "data", images.card)
    for line in images.findings:
        say(f"note: {line}")
    said = image_network(begun, images, kind="images", outputs=len(images.preparation.labels))
    work = GenerationWork(**begun.settled(said, images.card), images=images, say=say)
    require_whole_batches(work)
    return work
