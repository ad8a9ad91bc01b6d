import json
import pickle

import pytest
import torch
from torch import nn

from adaptbench.errors import CheckpointError, NonFiniteError
from adaptbench.zoo.checkpoints import card_path, load, load_into, save

CARD = {"accuracy": 0.978, "recipe": {"epochs": 3}, "ε": [0.01, None]}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    save(path, net().state_dict(), CARD)
    return path


def net(width=3):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Linear(width, 2))


def test_what_was_saved_is_loaded(tmp_path):
    module, path = net(), tmp_path / "deep" / "net.safetensors"
    digest = save(path, module.state_dict(), CARD)
    tensors, card = load(path)
    assert card == {**CARD, "sha256": digest}
    other = net()
    load_into(other, tensors)
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"]


def test_equal_weights_give_equal_bytes(tmp_path):
    a, b = torch.rand(3), torch.rand(2)
    assert save(tmp_path / "1.safetensors", {"a": a, "b": b}, {}) == save(
        tmp_path / "2.safetensors", {"b": b, "a": a}, {"x": 1}
    )


def test_tied_and_strided_tensors_can_be_saved(tmp_path):
    w = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    save(tmp_path / "a.safetensors", {"a": w, "b": w, "c": w.transpose(0, 1)}, {})
    tensors, _ = load(tmp_path / "a.safetensors")
    assert torch.equal(tensors["a"], w)
    assert torch.equal(tensors["c"], w.transpose(0, 1))


def test_loading_keeps_the_modules_memory_layout(saved):
    module = net().to(memory_format=torch.channels_last)
    load_into(module, load(saved)[0])
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_missing(tmp_path):
    with pytest.raises(CheckpointError, match="adaptbench train"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 30, -1])
def test_truncated(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cut off or changed"):
        load(saved)


def test_one_flipped_bit_is_seen(saved):
    data = bytearray(saved.read_bytes())
    data[-3] ^= 1
    saved.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load(saved)


@pytest.mark.parametrize("card", [None, "{", "[]", "{}", '{"sha256": 3}'])
def test_a_card_that_is_missing_or_damaged(saved, card):
    card_path(saved).unlink() if card is None else card_path(saved).write_text(card)
    with pytest.raises(CheckpointError, match="card"):
        load(saved)


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.pkl", "net.safetensors"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_not_run(tmp_path, name, protocol, zipped):
    path = tmp_path / name
    bomb = Bomb(tmp_path / "exploded")
    if zipped:
        torch.save(bomb, path)
    else:
        path.write_bytes(pickle.dumps(bomb, protocol=protocol))
    with pytest.raises(CheckpointError, match="runs whatever code it holds") as caught:
        load(path)
    assert "weights_only=True" in caught.value.todo
    assert not (tmp_path / "exploded").exists()


def test_rubbish_with_a_right_hash_is_still_not_weights(saved):
    import hashlib

    saved.write_bytes(b"rubbish, but long enough to have a header")
    card_path(saved).write_text(json.dumps({"sha256": hashlib.sha256(saved.read_bytes()).hexdigest()}))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path, value):
    with pytest.raises(NonFiniteError, match="'w' first"):
        save(tmp_path / "a.safetensors", {"w": torch.tensor([1.0, value])}, {})
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_from_elsewhere(saved):
    import hashlib

    from safetensors.torch import save as to_bytes

    data = to_bytes({"w": torch.tensor([float("nan")])})
    saved.write_bytes(data)
    card_path(saved).write_text(json.dumps({"sha256": hashlib.sha256(data).hexdigest()}))
    with pytest.raises(NonFiniteError):
        load(saved)


@pytest.mark.parametrize("card", [{"a": torch.zeros(1)}, {"a": float("nan")}])
def test_a_card_that_json_cannot_hold(tmp_path, card):
    with pytest.raises(CheckpointError, match="JSON"):
        save(tmp_path / "a.safetensors", {"w": torch.zeros(1)}, card)
    assert not list(tmp_path.iterdir())


def test_another_suffix(tmp_path):
    with pytest.raises(CheckpointError, match=r"ends in \.safetensors"):
        save(tmp_path / "a.pt", {"w": torch.zeros(1)}, {})


def test_the_first_differences_are_named_and_nothing_is_changed(saved):
    module = net(width=4)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_into(module, load(saved)[0], name="net")
    assert "'0.bias' has shape (3,), the module's is (4,)" in caught.value.seen
    assert "and 4 more" in caught.value.seen
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("2.bias"), "'2.bias' is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "'extra' is not in the module"),
        (lambda t: t.update({"2.bias": torch.zeros(2, dtype=torch.int64)}), "is torch.int64"),
    ],
)
def test_names_and_kinds_must_fit(saved, change, told):
    tensors, _ = load(saved)
    change(tensors)
    with pytest.raises(CheckpointError, match=told):
        load_into(net(), tensors)
