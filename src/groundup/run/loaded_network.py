"""Networks that are no language models, loaded and ready to be asked: what all of them share, and those that draw
images. `groundup.load(path)` makes them; the command line calls the same methods.

What they are not made for is refused with what they are made for. Predictors, translators, and what acts or plays are
in files of their own.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.errors import GroundupError, nearest, printable
from groundup.evaluation.generated import require_finite
from groundup.models.gan import Gan
from groundup.run.models import family_of, find_model
from groundup.run.networks import PREPARATION_FILE, LoadedNetwork

IMAGES_AT_ONCE = 64
EPISODES = 100


class LoadedNetworkModel:
    """What every loaded network shares: its place, its name, and the refusal of what it cannot do.

    Args:
        model: the network, in evaluation mode.
        device: where it is.
        name: how messages and results call it, usually its path.
        autocast: dtype of the matrix products, or None for the model's own.
    """

    does: ClassVar[str] = ""
    """What the network does, after "it"."""
    use: ClassVar[str] = ""
    """The command that puts it to use; {} stands for its name."""

    def __init__(
        self, model: nn.Module, *, device: torch.device, name: str, autocast: torch.dtype | None = None
    ) -> None:
        self.model, self.device, self.name, self.autocast = model, device, name, autocast

    @property
    def instead(self) -> str:
        """The command that puts this model to use."""
        return self.use.format(printable(self.name))

    def _refuse(self, code: str, what: str, why: str) -> NoReturn:
        where = printable(self.name)
        raise GroundupError(code, f"{what}: it {self.does}", where=where, why=why, fix=self.instead, exit_code=2)

    def generate(self, *given: Any, **options: Any) -> Any:
        """Refused: E-GEN-030."""
        self._refuse("E-GEN-030", "the model writes no text", "only a language model says which token comes next")

    stream = chat = stream_chat = require_chat = generate

    def sample(self, *given: Any, **options: Any) -> Any:
        """New images. Refused (E-GEN-031) where the network draws none."""
        self._refuse("E-GEN-031", "the model draws no images", "images are drawn by a network that was trained to")

    def predict(self, *given: Any, **options: Any) -> Any:
        """What the network says of rows. Refused (E-EVAL-061) where it says nothing."""
        self._refuse("E-EVAL-061", "the model predicts nothing", "predictions need a network that answers rows")

    predict_files = predict

    def evaluate(self, *given: Any, **options: Any) -> Any:
        """Measured on files. Refused (E-EVAL-062) where files measure nothing."""
        self._refuse("E-EVAL-062", "the model cannot be measured on files", "files hold no answers of this kind")

    def play(self, *given: Any, **options: Any) -> Any:
        """Whole episodes. Refused (E-EVAL-062) where the network does not act."""
        self._refuse("E-EVAL-062", "the model plays no episodes", "episodes are played by a network that acts")


def malformed_preparation(loaded: LoadedNetwork, error: Exception) -> GroundupError:
    """E-EVAL-060: what is said of the data cannot be used."""
    return GroundupError(
        "E-EVAL-060",
        f"{PREPARATION_FILE} is missing or malformed: {printable(f'{type(error).__name__}: {error}', 300)}",
        where=printable(str(loaded.folder / PREPARATION_FILE)),
        why="without the sizes, scales and labels of training the network would see other numbers",
        fix="groundup verify MODEL   (tells whether the folder is as it was written); copy it again, or train again",
    )


class LoadedGenerator(LoadedNetworkModel):
    """A network that draws images."""

    does = "draws images"
    use = "groundup generate {} --out images.png"

    def __init__(self, loaded: LoadedNetwork, *, device: torch.device, name: str) -> None:
        super().__init__(loaded.model, device=device, name=name)
        self.said = loaded.said

    def sample(self, n: int = 16, seed: int = 0, *, label: str | None = None) -> NDArray[np.uint8]:
        """New images, uint8 (N, C, H, W). The first of many are those that fewer would have been.

        Args:
            n: how many.
            seed: of the draws.
            label: of all of them, for a network that was told labels; None takes all labels in turn.

        Raises:
            GroundupError: E-GEN-032 fewer than one, or a label that the network does not know; E-EVAL-046 pixels
                that are not finite.
        """
        if n < 1:
            raise self._unfit(f"{n} images were asked for", "there is nothing to draw", "ask for one or more")
        chosen_N = self._labels(n, label)
        generator = torch.Generator().manual_seed(seed)
        made = []
        for start in range(
            0, n, IMAGES_AT_ONCE
        ):  # always whole pieces, so that the number asked for draws nothing else
            more = () if chosen_N is None else (chosen_N[start : start + IMAGES_AT_ONCE],)
            made.append(self.model.sample(IMAGES_AT_ONCE, generator, *more).float().cpu())  # type: ignore[operator]
        images_NCHW = torch.cat(made)[:n]
        require_finite(images_NCHW)
        return (images_NCHW.clamp(0, 1) * 255).round().to(torch.uint8).numpy()

    def _labels(self, n: int, label: str | None) -> Tensor | None:
        """The label of each image and of what fills the last piece; None where the network is told none."""
        known = self.said.labels if isinstance(self.model, Gan) and self.model.conditional else []
        if label is not None and label not in known:
            near = nearest(label, known)
            raise self._unfit(
                f"the network knows no label {printable(label)!r}",
                f"it was told these: {printable(', '.join(known), 300)}" if known else "it was trained without labels",
                f"did you mean {near}?" if near else "choose one of them, or leave --label out",
            )
        if not known:
            return None
        all_N = torch.arange(-(-n // IMAGES_AT_ONCE) * IMAGES_AT_ONCE)
        return all_N % len(known) if label is None else torch.full_like(all_N, known.index(label))

    def _unfit(self, what: str, why: str, fix: str) -> GroundupError:
        return GroundupError("E-GEN-032", what, where=printable(self.name), why=why, fix=fix, exit_code=2)


class LoadedAutoencoder(LoadedNetworkModel):
    """A network that makes images anew, and draws none of its own."""

    does = "makes anew the images that it is shown"
    use = "groundup inspect {}   (what it reads); its report shows images beside what it makes of them\n" + (
        "to draw new images, train a recipe with model.family=vae or model.family=gan"
    )


def require_language(path: str | Path, verb: str) -> None:
    """Refuse a network for a verb that is made for language models. Raises E-USE-040."""
    folder = find_model(Path(path))
    family = family_of(folder)
    if family is None:
        return
    raise GroundupError(
        "E-USE-040",
        f"groundup {verb} is made for language models, and this is a network of family {family}",
        where=printable(str(path)),
        why="other tools know no layout for such a network, and it has no adapters to fold in",
        fix=f"its weights are plain safetensors: {printable(str(folder / 'model.safetensors'))}\n"
        f"groundup inspect {printable(str(path))}   (what goes in and what comes out)",
        exit_code=2,
    )
