"""Texts, token ids and series in files of one's own; what may be two things is refused in words."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import adaptbench as ab
from adaptbench.adaptive.tokens import TokenDomain
from adaptbench.bench.runner import run_suite
from adaptbench.data import load_data
from adaptbench.data.table_files import Csv, Npz, Parquet
from adaptbench.data.text import english
from adaptbench.data.wordpiece import WordPiece
from adaptbench.errors import AdaptBenchError, DataMissingError
from adaptbench.testing.data import DataConformance
from adaptbench.testing.texts import write_encoder

GOOD, BAD = "a fine , warm film", "a dull , cold film"
TEXTS = [f"{(GOOD, BAD)[i % 2]} no {i}" for i in range(40)]


def write_texts(folder: Path, **columns: object) -> Path:
    frame = pd.DataFrame({"sentence": TEXTS, "label": [("good", "bad")[i % 2] for i in range(40)], **columns})
    frame.to_csv(folder / "films.csv", index=False)
    frame.to_parquet(folder / "films.parquet")
    return folder


def write_ids(folder: Path, **more: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    lengths = 2 + np.arange(40) % 6
    mask = (np.arange(8) < lengths[:, None]).astype(np.int64)
    ids = np.where(mask, rng.integers(1, 30, (40, 8)), 7)  # what stands behind a text means nothing
    np.savez(folder / "ids.npz", **{"input_ids": ids, "attention_mask": mask, "y": np.arange(40) % 2, **more})
    return np.where(mask, ids, 0)


def write_series(folder: Path) -> np.ndarray:
    x = np.random.default_rng(1).normal(0, 3, (40, 16, 3))
    np.savez(folder / "waves.npz", x=x, y=np.arange(40) % 2)
    flat = pd.DataFrame(x.transpose(0, 2, 1).reshape(40, -1))
    flat.columns = [f"v{i}" for i in range(48)]
    flat.assign(label=np.arange(40) % 2).to_csv(folder / "waves.csv", index=False)
    return x.transpose(0, 2, 1).astype(np.float32)


class TestTexts(DataConformance):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path):
        self.folder = tmp_path

    def make(self):
        return Csv(str(write_texts(self.folder) / "films.csv"))


class TestTextsInParquet(TestTexts):
    def make(self):
        return Parquet(f"{write_texts(self.folder) / 'films.parquet'}?length=16")


class TestIds(TestTexts):
    def make(self):
        write_ids(self.folder)
        return Npz(str(self.folder / "ids.npz"))


class TestSeries(TestTexts):
    def make(self):
        write_series(self.folder)
        return Npz(f"{self.folder / 'waves.npz'}?layout=NTC")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_texts_become_the_rows_of_the_houses_tokenizer(tmp_path, kind):
    data = load_data(f"{kind}:{write_texts(tmp_path) / 'films'}.{kind}?length=16")
    assert data.shape == (16,)
    assert data.class_names == ("bad", "good")
    assert data.domain == TokenDomain(16, english().vocabulary, english().pad)
    test = data.split("test")
    assert test.x.dtype == torch.int64
    rows = english().rows([TEXTS[i] for i in test.ids], 16)
    assert torch.equal(test.x, torch.from_numpy(rows))
    assert [data.class_names[y] for y in test.y] == [("good", "bad")[i % 2] for i in test.ids.tolist()]


def test_texts_in_an_encoders_pieces_with_roles_of_their_own(tmp_path):
    folder = write_encoder(tmp_path / "encoder")
    roles = ["train"] * 20 + ["calibration"] * 10 + ["test"] * 10
    write_texts(tmp_path, role=roles, year=np.arange(40))
    data = load_data(f"csv:{tmp_path / 'films.csv'}?text=sentence&encoder={folder}&length=12")
    words = WordPiece.read(folder)
    assert torch.equal(data.split("test").x, torch.from_numpy(words.rows(TEXTS[30:], 12)))
    assert data.domain.vocabulary == words.vocabulary
    assert any("left out beside the text: year" in note for note in data.notes)


def test_words_that_pandas_takes_for_nothing_are_words(tmp_path):
    pd.DataFrame({"text": ["NA", "null", *TEXTS[2:]], "label": np.arange(40) % 2}).to_csv(
        tmp_path / "a.csv", index=False
    )
    data = load_data(f"csv:{tmp_path / 'a.csv'}?length=16")
    parts = [data.split(role) for role in ("train", "calibration", "test")]
    row = next(part.x[part.ids == 0][0] for part in parts if (part.ids == 0).any())
    assert row.tolist() == english().rows(["NA"], 16)[0].tolist()


def test_ids_with_a_mask_are_padded_by_it(tmp_path):
    ids = write_ids(tmp_path)
    data = load_data(f"npz:{tmp_path / 'ids.npz'}")
    train = data.split("train")
    assert torch.equal(train.x, torch.from_numpy(ids[train.ids.numpy()]))
    assert data.domain.lengths(train.x).tolist() == [2 + i % 6 for i in train.ids.tolist()]
    assert (len(data.domain.vocabulary), data.domain.vocabulary[3]) == (30, "#3")


@pytest.mark.parametrize("spec", ["npz:{}/waves.npz?layout=NTC", "csv:{}/waves.csv?shape=3x16"])
def test_series_stay_the_floats_that_they_are(tmp_path, spec):
    x = write_series(tmp_path)
    part = load_data(spec.format(tmp_path)).split("test")
    assert part.x.dtype == torch.float32
    assert torch.allclose(part.x, torch.from_numpy(x[part.ids.numpy()]), rtol=0, atol=1e-6)
    assert load_data(spec.format(tmp_path)).domain is None


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        (
            {"x": np.full((20, 16), 300), "y": np.arange(20) % 2},
            "",
            r"flat pictures or token ids: .*shape=1x4x4.*layout=NL",
        ),
        ({"x": np.full((20, 6), 3), "y": np.arange(20) % 2}, "", r"shape=1xHxW"),
        ({"x": np.full((20, 4, 6), 0.5), "y": np.arange(20) % 2}, "", r"grey pictures or series: .*NHW.*NCT.*NTC"),
        ({"x": np.full((20, 4, 6), 7.5), "y": np.arange(20) % 2}, "", r"span \[7.5, 7.5\].*layout=NCT"),
        ({"x": np.full((20, 4, 6), np.inf), "y": np.arange(20) % 2}, "?layout=NCT", "no numbers"),
        ({"x": np.full((20, 4), 0.5), "y": np.arange(20) % 2}, "?layout=NTC", "not three axes NTC"),
        ({"x": np.full((20, 4), 0.5), "y": np.arange(20) % 2}, "?layout=NL", "token ids are float64"),
        ({"x": np.full((20, 4), 1), "input_ids": np.ones((20, 4)), "y": np.arange(20) % 2}, "", "which are the inputs"),
        (
            {"input_ids": np.ones((20, 4), int), "mask": np.ones((20, 5), int), "y": np.arange(20) % 2},
            "",
            "the mask is",
        ),
        ({"input_ids": np.ones((20, 4), int), "mask": np.full((20, 4), 2), "y": np.arange(20) % 2}, "", "the mask is"),
        (
            {"input_ids": np.zeros((20, 4), int), "mask": np.ones((20, 4), int), "y": np.arange(20) % 2},
            "",
            "mask keeps",
        ),
        ({"input_ids": np.eye(20, 4, dtype=int)[:, ::-1], "y": np.arange(20) % 2}, "", "begins with padding"),
        ({"input_ids": np.full((20, 4), -1), "y": np.arange(20) % 2}, "", "begin at -1"),
        ({"input_ids": np.full((20, 4), 1), "y": np.arange(19) % 2}, "", "20 inputs, 19 labels"),
        ({"x": np.full((20, 4, 6), 7.5), "y": np.arange(20) % 2}, "?layout=CTN", "the layout 'CTN'"),
        ({"x": np.full((20, 4, 6), 7.5), "y": np.arange(20) % 2}, "?layout=NTC&shape=4x6", "says two things"),
        ({"x": np.full((20, 4, 6), 7.5), "y": np.arange(20) % 2}, "?text=x", "no option 'text'"),
    ],
)
def test_arrays_that_may_be_two_things_or_none_are_refused(tmp_path, arrays, options, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(AdaptBenchError, match=message):
        load_data(f"npz:{tmp_path / 'a.npz'}{options}")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"title": TEXTS}, "", r"sentence, title hold words.*Say \?text=sentence"),
        ({"year": range(40)}, "", r"sentence holds words.*Say \?text=sentence"),
        ({}, "?text=sentense", "no column 'sentense' of texts .Did you mean 'sentence'"),
        ({}, "?shape=3x4", "is of pictures and series"),
        ({}, "?length=1", "the length '1'"),
        ({"year": range(40)}, "?text=year", "row 1 of 'year' is no text"),
    ],
)
def test_tables_of_words_that_do_not_say_which_are_refused(tmp_path, columns, options, message):
    write_texts(tmp_path, **columns)
    with pytest.raises(AdaptBenchError, match=message):
        load_data(f"parquet:{tmp_path / 'films.parquet'}{options}")


def test_an_encoder_is_asked_of_texts_only_and_must_be_there(tmp_path):
    write_series(tmp_path)
    folder = write_encoder(tmp_path / "encoder")
    with pytest.raises(AdaptBenchError, match="are of texts"):
        load_data(f"csv:{tmp_path / 'waves.csv'}?shape=3x16&encoder={folder}")
    write_texts(tmp_path)
    with pytest.raises(DataMissingError, match="neither tokenizer"):
        load_data(f"csv:{tmp_path / 'films.csv'}?encoder={tmp_path}")


def test_a_suite_takes_texts_by_name_and_a_folder_by_its_function(tmp_path, monkeypatch):
    """What docs/text.md says: ./mine.py:build over an encoder's folder, data in its pieces."""
    monkeypatch.chdir(tmp_path)
    write_encoder("encoder")
    write_texts(tmp_path)
    Path("mine.py").write_text(
        "import adaptbench as ab\nfrom adaptbench.models.text import text_exits\n\n\n"
        "def build():\n    net = text_exits('encoder', n_classes=2, length=16)\n"
        "    return net.under(ab.policies.UniformThreshold(0.6))\n",
        encoding="utf-8",
    )
    Path("mine.yaml").write_text(
        "title: mine\ndata: csv:films.csv?text=sentence&encoder=encoder&length=16\nmodels: ['./mine.py:build']\n"
        "references: []\nconditions: [clean, words-random: {share: 0.2}]\n",
        encoding="utf-8",
    )
    done = run_suite("mine.yaml", out=tmp_path / "run", allow_imports=True)
    cases = {case["condition"]: case for case in done.cases}
    assert cases["clean"]["n"] == 8
    assert cases["words-random"]["craft_details"]["words_edited"] > 0


def test_rounding_of_float_pictures_is_said(caplog):
    y = torch.zeros(4, dtype=torch.int64)
    with caplog.at_level(logging.WARNING):
        ab.split(torch.arange(4 * 64).reshape(4, 1, 8, 8) / 255, y, role="test")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        ab.split(torch.full((4, 1, 8, 8), 0.001), y, role="test")
    assert "rounded to 8 bits, by 0.255 of a level" in caplog.text
