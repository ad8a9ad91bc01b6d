"""The character model with its shipped weights, or with your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptbench.decoding.network import CharacterLm, Size
from adaptbench.decoding.training import NAME
from adaptbench.errors import CheckpointError
from adaptbench.zoo import checkpoints
from adaptbench.zoo.loading import zoo_folders

SHIPPED = Path(__file__).parent / "shipped"


def load_character_lm(
    data: str = "ag-news", *, zoo: Path | None = None, device: str = "cpu"
) -> tuple[CharacterLm, dict[str, Any]]:
    """The model and its card, in eval mode and without gradients.

    Args:
        data: that it was trained on. zoo: folder to look in first. device: where it goes.

    Raises:
        CheckpointError: no weights for the data set, or damaged ones.
    """
    looked = [folder / data / f"{NAME}{checkpoints.SUFFIX}" for folder in (*zoo_folders(zoo), SHIPPED)]
    place = next((place for place in looked if place.is_file()), None)
    if place is None:
        raise CheckpointError(
            f"there are no weights of the character model for '{data}' in: {', '.join(map(str, looked))}.",
            todo=f"Train them: adaptbench train {NAME} --data {data} --out ZOO, and name the folder by --zoo.",
        )
    tensors, card = checkpoints.load(place)
    try:
        net = CharacterLm(Size(**card["settings"]["size"]))
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"the card of {place} does not say of what size the model is.", todo="Fetch or train it again."
        ) from error
    checkpoints.load_into(net, tensors, name=str(place))
    return net.eval().requires_grad_(False).to(device), card
