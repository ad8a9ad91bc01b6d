"""Writes adaptbench/data/vocabulary/english.txt: word pieces trained on the training files of SST-2 and AG News.

Run once, where the data sets lie under ADAPTBENCH_DATA and `tokenizers` is installed; the file is committed.
"""

from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from adaptbench.data.text import AgNews, Sst2

PIECES = 6000
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
FILE = Path(__file__).parent.parent / "adaptbench" / "data" / "vocabulary" / "english.txt"


def main() -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [text for data in (Sst2(), AgNews()) for text in data.texts("train")]
    trainer = trainers.WordPieceTrainer(vocab_size=PIECES, special_tokens=SPECIAL, limit_alphabet=80, min_frequency=2)
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    FILE.write_text("\n".join(sorted(ids, key=ids.__getitem__)) + "\n", encoding="utf-8")
    print(f"{FILE.name}: {len(ids)} pieces")


if __name__ == "__main__":
    main()
