import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_files import idx_bytes, pictures

from adaptbench.data.idx import read_idx
from adaptbench.errors import DataFormatError

ARRAY = pictures(3, (4, 5), 0)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["a.gz", "a"])
def test_what_was_written_is_read(tmp_path, packed, name):
    data = idx_bytes(ARRAY)
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    read = read_idx(tmp_path / name, item=(4, 5), at_most=3)
    assert np.array_equal(read, ARRAY)
    assert read.flags.writeable


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "nothing"),
        (b"\x89PNG....", "89504e47"),
        (struct.pack(">HBB", 0, 0x0D, 1), "0x0d"),
        (idx_bytes(ARRAY[0, 0]), "exchanged"),
        (idx_bytes(ARRAY)[:10], "header is cut off"),
        (idx_bytes(ARRAY)[:-1], "only 59"),
        (idx_bytes(ARRAY) + b"!", "more"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2), "its header says shape"),
        (idx_bytes(pictures(4, (4, 5), 0)), r"its header says shape \(4, 4, 5\), not \(N, 4, 5\) with N up to 3"),
        (gzip.compress(idx_bytes(ARRAY), mtime=0)[:-9], "gzip stream"),
        (gzip.compress(idx_bytes(ARRAY), mtime=0)[:-5] + b"abcde", "gzip stream"),
        (b"\x1f\x8b" + b"no gzip at all", "gzip stream"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, data, told):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DataFormatError, match=told) as caught:
        read_idx(tmp_path / "file", item=(4, 5), at_most=3)
    assert str(tmp_path / "file") in str(caught.value)


@settings(max_examples=80, deadline=None)
@given(cut=st.integers(0, 75), packed=st.booleans())
def test_no_cut_is_read_as_whole(tmp_path_factory, cut, packed):
    data = gzip.compress(idx_bytes(ARRAY)) if packed else idx_bytes(ARRAY)
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(data[: min(cut, len(data) - 1)])
    with pytest.raises(DataFormatError):
        read_idx(path, item=(4, 5), at_most=3)
