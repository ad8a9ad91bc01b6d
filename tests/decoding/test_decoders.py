"""Laws of decoding: guessing changes nothing, leaving early is what it says, MACs are what the dispatcher saw."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adaptbench.adaptive.counting import counting
from adaptbench.decoding.attacks import Search, attack, changed
from adaptbench.decoding.costs import StepCosts, count_costs
from adaptbench.decoding.decoders import Calm, Decoder, Greedy, SelfSpeculative, confidence, decode, prefill
from adaptbench.decoding.generation import Made, generate
from adaptbench.decoding.memory import Memory
from adaptbench.decoding.network import CharacterLm, Layer, Size
from adaptbench.decoding.quality import at_each_exit, predicted
from adaptbench.errors import GraphError, UsageError

Net = tuple[CharacterLm, StepCosts]
PROMPT = [0, 40, 17, 5, 62]
ids = st.lists(st.integers(0, 96), min_size=1, max_size=20)


@settings(max_examples=12, deadline=None)
@given(prompt=ids, exit=st.integers(1, 3), drafts=st.integers(1, 7), limit=st.integers(1, 24), stop=st.integers(0, 96))
def test_speculative_output_is_greedy_output(
    untrained: Net, prompt: list[int], exit: int, drafts: int, limit: int, stop: int
) -> None:
    net, costs = untrained
    greedy = generate(net, costs, Greedy(), prompt, limit, stop=stop)
    guessed = generate(net, costs, SelfSpeculative(exit, drafts), prompt, limit, stop=stop)
    assert guessed.ids == greedy.ids
    assert guessed.stopped == greedy.stopped
    assert guessed.macs >= greedy.macs
    assert guessed.prefill_macs == greedy.prefill_macs


def test_guesses_stand_and_fall(untrained: Net) -> None:
    """The law above is empty where no guess is ever dropped, or none ever stands."""
    net, costs = untrained
    steps = [
        step
        for first in range(20)
        for step in generate(net, costs, SelfSpeculative(3, 3), [0, first], 20).steps
        if step.drafted
    ]
    assert any(step.accepted for step in steps)
    assert any(step.accepted < step.drafted for step in steps)


def test_a_memory_that_keeps_dropped_guesses_is_found_out(untrained: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: an answer is kept as if its guess had stood."""
    net, costs = untrained
    prompts = [[0, first] for first in range(12)]
    greedy = [generate(net, costs, Greedy(), prompt, 20).ids for prompt in prompts]
    whole = Memory.run

    def kept(self: Memory, layer: int, h: Tensor, start: int) -> Tensor:
        shifted = h.roll(1, 1) if h.shape[1] > 1 and start and layer == net.size.layers - 1 else h
        return whole(self, layer, shifted, start)

    monkeypatch.setattr(Memory, "run", kept)
    assert [generate(net, costs, SelfSpeculative(3, 3), prompt, 20).ids for prompt in prompts] != greedy


def reference(net: CharacterLm, prompt: list[int], limit: int, decoder: Calm) -> tuple[list[int], list[int]]:
    """CALM without a memory: all states of all places anew for every character, those that left copied upwards."""
    layers, made, exits = net.size.layers, [], []
    left = [layers] * (len(prompt) - 1)
    for t in range(limit):
        row = [*prompt, *made]
        states = [net.entry(torch.tensor([row]))]
        for k in range(layers):
            layer = net.layers[k]
            assert isinstance(layer, Layer)
            h, turns = states[-1], net.turns[:, : len(row)].to(states[-1].dtype)
            new = layer(h, turns, *layer.keys_values(h, turns))
            for place, depth in enumerate(left):
                if k >= depth:
                    new[:, place] = h[:, place]
            states.append(new)
            logits = net.exit_logits(new[0, -1], k)
            if confidence(logits) >= decoder.threshold_at(t, limit) or k + 1 == layers:
                break
        left.append(k + 1)
        exits.append(k + 1)
        made.append(int(logits.argmax()))
    return made, exits


@pytest.mark.parametrize("decoder", [Calm(0.2), Calm(0.6), Calm(0.1, decay=4.0), Calm(0.0)], ids=str)
def test_leaving_early_is_state_propagation(untrained: Net, decoder: Calm) -> None:
    net, costs = untrained
    with torch.no_grad():
        expected = reference(net, PROMPT, 16, decoder)
    made = generate(net, costs, decoder, PROMPT, 16)
    assert (made.ids, [step.exit for step in made.steps]) == expected
    if decoder.threshold in (0.1, 0.2):
        assert len({step.exit for step in made.steps}) > 1


@pytest.mark.parametrize(
    "decoder", [Greedy(), Calm(0.3), Calm(0.3, 4.0, (2,)), SelfSpeculative(2, 3), SelfSpeculative(1, 6)], ids=str
)
def test_macs_are_what_the_dispatcher_sees(untrained: Net, decoder: Decoder) -> None:
    net, costs = untrained
    with counting() as counter:
        made = generate(net, costs, decoder, PROMPT, 20)
    assert made.prefill_macs + made.macs == counter.macs
    assert not counter.uncounted


def test_greedy_costs_what_the_formula_says(untrained: Net) -> None:
    net, _ = untrained
    made = generate(net, count_costs(net), Greedy(), PROMPT, 10)
    d, inner, layers, v = net.size.width, net.size.inner, net.size.layers, net.size.vocabulary
    places = range(len(PROMPT), len(PROMPT) + 10)
    assert made.macs == sum(layers * (4 * d * d + 2 * d * inner + 2 * d * seen) + v * d for seen in places)
    n = len(PROMPT) - 1
    assert made.prefill_macs == layers * (n * (4 * d * d + 2 * d * inner) + 2 * d * n * n)


def test_a_threshold_that_nothing_reaches_is_greedy_at_the_price_of_asking(untrained: Net) -> None:
    net, costs = untrained
    greedy, never = (generate(net, costs, one, PROMPT, 20) for one in (Greedy(), Calm(1.0)))
    assert never.ids == greedy.ids
    assert never.macs == greedy.macs + 20 * costs.head * (net.size.layers - 1)
    unasked = generate(net, costs, Calm(0.0, exits=()), PROMPT, 20)
    assert (unasked.ids, unasked.macs) == (greedy.ids, greedy.macs)


def test_what_left_is_made_up_for_once_and_by_whom_needs_it(untrained: Net) -> None:
    """All leave at the first exit but the last, whose step pays for the keys and values that they lack."""
    net, costs = untrained
    memory, layers = Memory(net, costs), net.size.layers
    with torch.inference_mode():
        prefill(memory, PROMPT)
        early = list(decode(Calm(0.0), memory, PROMPT, 6))
        place = len(PROMPT) - 1 + 6
        before = memory.macs
        Greedy().step(memory, early[-1].tokens[0], place, 0, 1)
    assert [step.exit for step in early] == [1] * 6
    assert memory.macs - before == costs.pass_(1, place + 1, layers) + costs.head + 6 * (layers - 1) * costs.fill
    assert memory.filled == [place + 1] * layers


def test_the_threshold_decays_as_calm_has_it() -> None:
    calm = Calm(0.8, decay=4.0)
    assert calm.threshold_at(0, 100) == pytest.approx(0.82)
    assert calm.threshold_at(50, 100) == pytest.approx(0.72 + 0.1 * 2.718281828**-2.0)
    assert Calm(1.0, decay=0.0).threshold_at(3, 4) == 1.0


def test_text_that_was_made_is_predicted_as_it_was_made(untrained: Net) -> None:
    net, costs = untrained
    for decoder in (Greedy(), Calm(0.3)):
        made = generate(net, costs, decoder, PROMPT, 12)
        found = predicted(net, costs, decoder, [*PROMPT, *made.ids], len(PROMPT))
        assert all(right for _, right, _ in found)
        assert sum(macs for _, _, macs in found) == made.macs


def test_the_last_exit_reads_as_greedy_does(untrained: Net) -> None:
    net, costs = untrained
    text = [*PROMPT, 9, 33, 71, 2, 50]
    whole = predicted(net, costs, Greedy(), text, 3)
    *_, last = at_each_exit(net, costs, [text], 3)
    assert last["bits_per_character"] == pytest.approx(sum(bits for bits, _, _ in whole) / len(whole))
    assert last["macs_per_token"] == sum(macs for _, _, macs in whole) / len(whole)


def test_attacks_keep_depth_and_length_apart(untrained: Net) -> None:
    net, costs = untrained
    prompt, search = [0, *range(20, 32)], Search(edits=2, queries=12)
    depth = attack(net, costs, "depth", Calm(0.3), prompt, 10, None, search, 0)
    assert {len(made.ids) for made in (depth.clean, depth.attacked, depth.random, depth.random_best)} == {10}
    assert depth.attacked.macs >= depth.clean.macs
    ids = generate(net, costs, Greedy(), prompt, 4).ids
    length = attack(net, costs, "length", Calm(0.3), prompt, 30, ids[2], search, 0)
    assert {step.exit for made in (length.clean, length.attacked) for step in made.steps} == {net.size.layers}
    assert len(length.clean.ids) == ids.index(ids[2]) + 1
    assert len(length.attacked.ids) > len(length.clean.ids)
    for found in (depth, length):
        assert found.prompt[0] == 0
        assert 0 < changed(prompt, found.prompt) <= 2
        assert changed(prompt, found.random.prompt) == 2
        assert found.attacked.prompt == found.prompt


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Calm(1.5), "no rule to leave by"),
        (lambda: SelfSpeculative(0, 2), "guesses nothing"),
    ],
)
def test_settings_that_mean_nothing(call: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        call()  # type: ignore[operator]


def test_settings_that_the_model_cannot_have(untrained: Net) -> None:
    net, costs = untrained
    for decoder, says in ((SelfSpeculative(4, 2), "of 4 layers"), (Calm(0.5, exits=(9,)), "not among the layers")):
        with pytest.raises(UsageError, match=says):
            generate(net, costs, decoder, PROMPT, 4)
    with pytest.raises(UsageError, match="by a model of 64"):
        generate(net, costs, Greedy(), [1] * 70, 4)
    full: Made = generate(net, costs, SelfSpeculative(2, 5), [1] * 60, 50)
    assert len(full.ids) == 5  # the context is full


def test_layers_that_cost_differently_are_refused() -> None:
    net = CharacterLm(Size(2, 32, 2, 64, 48))
    net.layers[1] = Layer(Size(1, 32, 2, 32, 48))
    with pytest.raises(GraphError, match="cost differently"):
        count_costs(net)
