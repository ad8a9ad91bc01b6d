"""Cards of checkpoints that somebody else wrote."""

from __future__ import annotations

import json
import shutil

import pytest

from adaptbench.errors import CheckpointError
from adaptbench.zoo.loading import SHIPPED, load_system


@pytest.mark.case("own")
@pytest.mark.parametrize(
    "card",
    [
        lambda card: "[" * 100_000,
        lambda card: json.dumps(card)[:-1] + ', "epochs": ' + "9" * 400 + "}",
        lambda card: json.dumps(card)[:-1] + ', "loss": NaN}',
        lambda card: json.dumps({**card, "settings": 7}),
        lambda card: json.dumps({**card, "settings": {"epsilon": [[]]}}),
        lambda card: json.dumps({**card, "settings": dict.fromkeys(card["settings"], "x")}),
        lambda card: json.dumps([card]),
    ],
)
def test_a_card_of_any_content_is_one_message(tmp_path, card):
    """Integers of 400 digits, 100 000 brackets and settings of a wrong type ended in tracebacks."""
    shutil.copytree(SHIPPED / "digits", tmp_path / "digits", ignore=lambda _, names: _unneeded(names))
    place = tmp_path / "digits" / "softmax-threshold.policy.json"
    place.write_text(card(json.loads(place.read_text(encoding="utf-8"))), encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        load_system("softmax-threshold", "digits", zoo=tmp_path)
    assert "softmax-threshold.policy" in caught.value.seen


def _unneeded(names):
    return [name for name in names if not name.startswith(("multi-exit.", "softmax-threshold.policy."))]
