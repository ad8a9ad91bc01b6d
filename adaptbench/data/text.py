"""SST-2 and AG News, read from their published files; texts become rows of a tokenizer's ids."""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from adaptbench.adaptive.splits import Role
from adaptbench.adaptive.tokens import TokenDomain
from adaptbench.data import packed
from adaptbench.data.base import Labelled, StoredData
from adaptbench.data.encoders import MINILM, Encoder
from adaptbench.data.partition import SEED, Indices, stratified_cut
from adaptbench.data.places import VARIABLE, expandable, search_roots
from adaptbench.data.wordpiece import WordPiece
from adaptbench.errors import DataFormatError, DataMissingError

LENGTH = 64  # columns of a row
Texts = tuple[list[str], Indices]


@cache
def english() -> WordPiece:
    """The house's own 6 000 pieces, trained on the training texts of both sets (benchmarks/text_vocabulary.py)."""
    file = Path(__file__).parent / "vocabulary" / "english.txt"
    return WordPiece(tuple(file.read_text(encoding="utf-8").splitlines()))


class TextData(StoredData):
    """Texts of a few classes. Subclasses give the names and `_texts`.

    Attributes:
        encoder: whose tokenizer makes the ids; None for the house's own.
        label_words: words that name a class, which an attack leaves alone.
    """

    shape = (LENGTH,)
    encoder: ClassVar[Encoder | None] = None
    files: ClassVar[str]
    archives: ClassVar[tuple[str, ...]]
    folders: ClassVar[tuple[str, ...]]
    get_it: ClassVar[str]

    @cached_property
    def tokenizer(self) -> WordPiece:
        """Makes the ids.

        Raises:
            DataMissingError: it is an encoder's, and the encoder is not here.
        """
        return english() if self.encoder is None else WordPiece.read(self.encoder.folder(self.root))

    @property
    def domain(self) -> TokenDomain:
        """What a model of these texts takes."""
        return TokenDomain(LENGTH, self.tokenizer.vocabulary, self.tokenizer.pad)

    @cached_property
    def folder(self) -> Path:
        """Where the files are.

        Raises:
            DataMissingError: nowhere.
        """
        looked = [root / folder for root in search_roots(self.root) for folder in self.folders]
        for place in looked:
            if self._is_here(place):
                return place
        seen = f"no {self.name} files ({self.files}) were found in: {', '.join(map(str, looked))}"
        if found := packed.archive([*search_roots(self.root), *looked], self.archives):
            raise expandable(seen, found)
        raise DataMissingError(
            f"{seen}.",
            todo=f"{self.get_it} Put the files into one of these places, or name their folder with `--data-root` or "
            f"the variable {VARIABLE}.",
        )

    def texts(self, role: Role) -> list[str]:
        """The texts of a split, in its order."""
        return self._texts(role)[0]

    def _read(self, role: Role) -> tuple[Labelled, Indices]:
        texts, y, ids = self._texts(role)
        return Labelled(self.tokenizer.rows(texts, LENGTH), y), ids

    @abstractmethod
    def _is_here(self, place: Path) -> bool:
        """The files are in a folder."""

    @abstractmethod
    def _texts(self, role: Role) -> tuple[list[str], Indices, Indices]:
        """Texts, labels and ids of a role."""


class Sst2(TextData):
    """Sentences and phrases of film reviews, 2 classes (Socher et al. 2013; GLUE's files, Wang et al. 2019).

    GLUE's train.tsv holds every phrase of its sentences. 1 620 whole sentences of it are calibration, and every row
    that is a part of one of them is left out of train: 49 664 rows stay. Test is dev.tsv (872) and, where the folder
    has it, test-labeled.tsv (1 821): GLUE publishes its test file without labels. An id is the row in the file; dev's
    come after train's, the test file's after dev's.
    """

    name = "sst2"
    class_names = ("negative", "positive")
    files, folders = "train.tsv, dev.tsv", ("SST-2", "sst2/SST-2", "sst2", "")
    archives = ("SST-2",)
    get_it = "Fetch SST-2.zip of the GLUE benchmark (7 MB; gluebenchmark.com, tasks) and unpack it."
    held_out: ClassVar[int] = 2000

    def _is_here(self, place: Path) -> bool:
        return (place / "train.tsv").is_file() and (place / "dev.tsv").is_file()

    def _texts(self, role: Role) -> tuple[list[str], Indices, Indices]:
        texts, y = read_tsv(self.folder / "train.tsv")
        if role != "test":
            calibration, train = apart(texts, self.held_out)
            rows = calibration if role == "calibration" else train
            return [texts[i] for i in rows], y[rows], rows
        parts = [read_tsv(self.folder / "dev.tsv")]
        if (extra := self.folder / "test-labeled.tsv").is_file():
            parts.append(read_tsv(extra))
        found = [text for part, _ in parts for text in part]
        return found, np.concatenate([labels for _, labels in parts]), len(texts) + np.arange(len(found))


class AgNews(TextData):
    """Titles and first sentences of news, 4 classes (Zhang, Zhao & LeCun 2015), truncated to 64 pieces.

    train.csv holds 120 000, test.csv 7 600; a part of the training file under the name train_subset.csv is taken where
    the whole is not there. A quarter of the training file, 5 000 at most, is calibration (a fixed stratified cut). An
    id is the row in the training file; a test id is its size + the row in the test file.
    """

    name = "ag-news"
    class_names = ("world", "sports", "business", "sci-tech")
    archives = ("ag_news_csv",)
    files, folders = "train.csv, test.csv", ("ag_news_csv", "ag-news/ag_news_csv", "ag-news", "")
    get_it = "Fetch ag_news_csv.tgz (11 MB; linked from the paper, arXiv:1509.01626) and unpack it."

    def _is_here(self, place: Path) -> bool:
        return (place / "test.csv").is_file() and self._training(place).is_file()

    @staticmethod
    def _training(place: Path) -> Path:
        whole = place / "train.csv"
        return whole if whole.is_file() else place / "train_subset.csv"

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """That a part of the training file stands in for the whole."""
        file = self._training(self.folder)
        return () if file.name == "train.csv" else (f"{file.name} stands in for the 120 000 training texts",)

    def _texts(self, role: Role) -> tuple[list[str], Indices, Indices]:
        texts, y = read_csv(self._training(self.folder))
        if role == "test":
            found, labels = read_csv(self.folder / "test.csv")
            return found, labels, len(texts) + np.arange(len(found))
        held_out = min(5000, len(y) // 4)
        train, calibration = stratified_cut(y, [len(y) - held_out, held_out])
        rows = train if role == "train" else calibration
        return [texts[i] for i in rows], y[rows], rows


class Sst2Minilm(Sst2):
    """SST-2 in MiniLM's pieces."""

    name, encoder = "sst2-minilm", MINILM


class AgNewsMinilm(AgNews):
    """AG News in MiniLM's pieces."""

    name, encoder = "ag-news-minilm", MINILM


def read_tsv(file: Path) -> Texts:
    """Sentences and labels of a GLUE file: a header, then ``sentence TAB label``.

    Raises:
        DataFormatError: another header, or a row that is not so.
    """
    lines = _lines(file)
    if not lines or lines[0].split("\t") != ["sentence", "label"]:
        raise DataFormatError(f"{file}, line 1: no header 'sentence TAB label'.", todo="Fetch GLUE's SST-2.zip again.")
    texts, labels = [], []
    for i, line in enumerate(lines[1:], start=2):
        text, _, label = line.rpartition("\t")
        if label not in ("0", "1") or not text.strip():
            raise DataFormatError(
                f"{file}, line {i}: {line[:60]!r} is no sentence with label 0 or 1.", todo="Fetch the file again."
            )
        texts.append(text.strip())
        labels.append(int(label))
    return texts, np.array(labels, dtype=np.int64)


def read_csv(file: Path) -> Texts:
    """Texts and labels of an AG News file: ``"class","title","description"``, classes from 1.

    Raises:
        DataFormatError: a row that is not so.
    """
    texts, labels = [], []
    for i, row in enumerate(csv.reader(_lines(file)), start=1):
        if len(row) != 3 or row[0] not in ("1", "2", "3", "4"):
            raise DataFormatError(
                f"{file}, row {i}: {','.join(row)[:60]!r} is no class from 1 to 4, title and description.",
                todo="Fetch ag_news_csv.tgz again.",
            )
        texts.append(f"{row[1]} {row[2]}".replace("\\", " "))
        labels.append(int(row[0]) - 1)
    return texts, np.array(labels, dtype=np.int64)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFormatError(f"{file} could not be read: {error}.", todo="Fetch the file again.") from error


def apart(texts: Sequence[str], held_out: int) -> tuple[Indices, Indices]:
    """Rows of whole sentences that are held out, and the rows that are part of none of them.

    A whole sentence ends with a full stop and is the end of no other row. Of fewer than four times `held_out` such
    sentences a quarter is held out.
    """
    split = [text.split() for text in texts]
    whole = [i for i, words in enumerate(split) if len(words) > 1 and words[-1] == "."]
    tails = {" ".join(split[i][k:]) for i in whole for k in range(1, len(split[i]))}
    whole = [i for i in whole if " ".join(split[i]) not in tails]
    drawn = np.random.RandomState(SEED).permutation(len(whole))[: min(held_out, len(whole) // 4)]
    rows = np.sort(np.array(whole, dtype=np.int64)[drawn])
    inside = {part for i in rows for part in _parts(split[i])}
    rest = np.array([i for i, words in enumerate(split) if " ".join(words) not in inside], dtype=np.int64)
    return rows, rest


def _parts(words: list[str]) -> Iterator[str]:
    for start in range(len(words)):
        for end in range(start + 1, len(words) + 1):
            yield " ".join(words[start:end])
