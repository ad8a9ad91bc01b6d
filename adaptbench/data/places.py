"""Where data files may lie, and fetching those that are published."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptbench.data.packed import Packed
from adaptbench.errors import DataFormatError, DataMissingError, UsageError

_log = logging.getLogger(__name__)

VARIABLE = "ADAPTBENCH_DATA"


def search_roots(root: Path | None) -> list[Path]:
    """The folders to look in, first hit wins. A root that the user names is the only one: no silent second choice."""
    if root is not None:
        return [at_home(root)]
    named = os.environ.get(VARIABLE)
    return [*([at_home(named)] if named else []), Path("data"), _cache()]


def download_root(root: Path | None) -> Path:
    """Where downloads go: the named root, else ADAPTBENCH_DATA, else the user's cache."""
    named = os.environ.get(VARIABLE)
    if root is not None:
        return at_home(root)
    return at_home(named) if named else _cache()


def at_home(path: Path | str) -> Path:
    """The path with ``~`` resolved.

    Raises:
        UsageError: it names a user that this machine does not have.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: {error}", todo="Write the whole path.") from error


def _cache() -> Path:
    return Path("~/.cache/adaptbench").expanduser()


@dataclass(frozen=True, slots=True)
class Remote:
    """A published file.

    Args:
        url: where it is.
        md5: as its publisher gives it.
        folder: to put it in, below the download root.
        archive: it is a tar file, to be unpacked there.
    """

    url: str
    md5: str
    folder: str
    archive: bool = False

    def fetch(self, root: Path) -> None:
        """Download, check the hash, unpack.

        Raises:
            DataMissingError: the download failed.
            DataFormatError: what came is not the published file.
        """
        import pooch  # type: ignore[import-untyped]  # only for downloads

        target, name = root / self.folder, self.url.rsplit("/", 1)[-1]
        _log.info("fetching %s into %s", self.url, target)
        try:
            file = pooch.retrieve(self.url, f"md5:{self.md5}", fname=name, path=target)
            if self.archive:
                # "download" unpacks also when the archive was there already and what it held is gone.
                pooch.Untar(extract_dir=".")(file, "download", None)
        except ValueError as error:
            raise DataFormatError(
                f"{self.url} gave a file whose md5 is not the published {self.md5}.",
                why=f"The download is damaged, or the file was changed ({error}).",
                todo="Try again, or fetch it elsewhere and check its md5.",
            ) from error
        except OSError as error:  # requests' errors are OSErrors too
            raise DataMissingError(
                f"{self.url} could not be fetched: {error}.",
                todo=f"Fetch it on a machine with a network and put it into {target}.",
            ) from error


def missing(
    name: str,
    looked: Sequence[Path],
    *,
    files: str,
    remotes: Sequence[Remote],
    size: str,
    packed: Packed | None = None,
) -> DataMissingError:
    """The error for a data set that is nowhere: each place looked at, and how to get it, or to expand what is there."""
    places = ", ".join(map(str, looked))
    if packed is not None:
        return expandable(f"no {name} files ({files}) were found in: {places}", packed)
    hosts = ", ".join(sorted({remote.url.rsplit("/", 1)[0] for remote in remotes}))
    return DataMissingError(
        f"no {name} files ({files}) were found in: {places}.",
        todo=f"Add `--download` to the command ({size} from {hosts}), or put the files into one of these places, "
        f"or name their folder with `--data-root` or the variable {VARIABLE}.",
    )


def expandable(seen: str, packed: Packed) -> DataMissingError:
    """The error for files that are not there while something is that becomes them."""
    return DataMissingError(f"{seen}; {packed.place} is there, {packed.what}.", why=packed.why, todo=packed.todo)
