"""The kit finds what it is for: one planted fault a check."""

import pytest
import torch

from adaptbench.adaptive.splits import Split
from adaptbench.data import load_data
from adaptbench.errors import AdaptBenchError, UsageError
from adaptbench.testing.data import DataConformance


class Planted:
    """Digits with a fault: `change` edits the fields of each split."""

    def __init__(self, change=None, **fields):
        self.digits, self.change = load_data("digits"), change
        self.name, self.class_names, self.n_classes, self.shape = "planted", self.digits.class_names, 10, (1, 8, 8)
        for key, value in fields.items():
            setattr(self, key, value)

    def split(self, role):
        if role == "validation":
            raise UsageError("no")
        s = self.digits.split(role)
        fields = {"name": self.name, "role": role, "x": s.x, "y": s.y, "ids": s.ids, "class_names": self.class_names}
        if self.change:
            self.change(self.digits, fields)
        return Split(**fields)


def kit(make):
    class Kit(DataConformance):
        def make(self):
            return make()

    return Kit()


CHECKS = [name for name in dir(DataConformance) if name.startswith("test_")]


@pytest.mark.parametrize("check", CHECKS)
def test_without_a_fault_all_pass(check):
    getattr(kit(Planted), check)()


def constant_ids(_, fields):
    fields["ids"] = torch.arange(len(fields["ids"]))


def scaled(_, fields):
    fields["x"] = (fields["x"] / 255).to(torch.uint8)


def labels_from_one(_, fields):
    fields["y"] = fields["y"] + 1


def test_is_train(digits, fields):
    if fields["role"] == "test":
        train = digits.split("train")
        fields.update(x=train.x, y=train.y, ids=train.ids + 5000)


test_is_train.__test__ = False


def shuffled(_, fields):
    order = torch.randperm(len(fields["y"]))
    fields.update(x=fields["x"][order], y=fields["y"][order], ids=fields["ids"][order])


def wrong_role(_, fields):
    fields["role"] = "train"


def one_hot(_, fields):
    fields["y"] = torch.nn.functional.one_hot(fields["y"], 10)


def strange_labels(_, fields):
    fields["y"] = torch.linspace(-3, 158, len(fields["y"])).long()


def small_integers(_, fields):
    fields["y"] = fields["y"].int()


def not_a_number(_, fields):
    fields["x"] = fields["x"].float() * float("nan")


def no_test_samples(_, fields):
    if fields["role"] == "test":
        fields.update({key: fields[key][:0] for key in ("x", "y", "ids")})


def one_id(_, fields):
    fields["ids"] = torch.zeros_like(fields["ids"])


@pytest.mark.parametrize(
    ("check", "make"),
    [
        ("test_it_describes_itself", lambda: Planted(n_classes=9)),
        ("test_it_describes_itself", lambda: Planted(name=" ")),
        ("test_splits_are_what_they_say", lambda: Planted(wrong_role)),
        ("test_splits_are_what_they_say", lambda: Planted(shape=(8, 8, 1))),
        ("test_pictures_are_uint8_and_not_blank", lambda: Planted(scaled)),
        ("test_labels_are_classes", lambda: Planted(labels_from_one)),
        ("test_ids_are_unique_over_all_roles", lambda: Planted(constant_ids)),
        ("test_nothing_of_the_test_split_was_seen_before", lambda: Planted(test_is_train)),
        ("test_it_is_accepted_when_loaded", lambda: Planted(one_hot)),
        ("test_it_is_accepted_when_loaded", lambda: Planted(strange_labels)),
        ("test_it_is_accepted_when_loaded", lambda: Planted(small_integers)),
        ("test_it_is_accepted_when_loaded", lambda: Planted(not_a_number)),
        ("test_it_is_accepted_when_loaded", lambda: Planted(no_test_samples)),
        ("test_it_is_accepted_when_loaded", lambda: Planted(one_id)),
        ("test_it_is_accepted_when_loaded", lambda: Planted(constant_ids)),
        ("test_the_same_samples_every_time", lambda: Planted(shuffled)),
        ("test_loading_leaves_the_random_state_alone", lambda: Planted(shuffled)),
    ],
)
def test_a_planted_fault_is_found(check, make):
    with torch.random.fork_rng([]), pytest.raises((AssertionError, AdaptBenchError)):
        getattr(kit(make), check)()


def test_a_role_that_is_let_through_is_found():
    data = Planted()
    data.split = lambda role: None
    with pytest.raises(AssertionError, match="was accepted"):
        kit(lambda: data).test_an_unknown_role_is_refused()
