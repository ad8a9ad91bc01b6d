"""What every attack must hold to.

Subclass in a test file and give `make`::

    class TestMyAttack(AttackConformance):
        def make(self) -> Attack:
            return MyAttack(eps=8 / 255)

`subject` gives the model and the inputs; override it where the attack needs others.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import ClassVar, get_args

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.base import Access, Attack, Crafted, Crafting, Kind, Metering, Surrogates
from adaptbench.attacks.purity import fingerprint
from adaptbench.errors import CapabilityError, LeakageError
from adaptbench.policies import UniformThreshold
from adaptbench.testing.planted import planted_graph, planted_split

CAPABILITIES = frozenset({"gradients", "exit_logits", "queries"})


class AttackConformance:
    """Checks that pytest collects from a subclass; each failure says which rule is broken.

    Attributes:
        never_cheaper: the attack keeps the clean picture where it found nothing dearer.
        n_inputs: pictures that the checks attack.
    """

    never_cheaper: ClassVar[bool] = True
    n_inputs: ClassVar[int] = 12

    @abstractmethod
    def make(self) -> Attack:
        """A new object for the attack under test."""

    def subject(self) -> tuple[AdaptiveModel, Tensor, Tensor, Tensor]:
        """Model, pictures (N, C, H, W) float in [0, 1], labels, ids."""
        model = planted_graph("chain")
        model.policy = UniformThreshold(0.9)
        split = planted_split("test", self.n_inputs)
        return model.eval(), split.images(), split.y, split.ids

    def surrogates(self) -> Surrogates | None:
        """Finds models by name, for transfer attacks."""
        return None

    def crafting(self) -> Crafting | None:
        """Pictures that the attack may learn from, none of the subject's."""
        return planted_split("calibration", 120)

    def metering(self) -> Metering | None:
        """Reads seconds or joules, for attackers who are told these."""
        return None

    def _craft(self, rows: Tensor | None = None, *, seed: int = 0) -> Crafted:
        model, x, y, ids = self.subject()
        rows = torch.arange(len(x)) if rows is None else rows
        return self.make().craft(
            model,
            x[rows],
            y[rows],
            ids=ids[rows],
            seed=seed,
            surrogate=self.surrogates(),
            crafting=self.crafting(),
            metering=self.metering(),
        )

    def test_it_describes_itself(self) -> None:
        """Name, access, kind, settings and needs are what reports and suites can read."""
        attack = self.make()
        assert attack.name == attack.name.strip() != "", "the name stands in case ids"
        assert attack.title, "the title stands in reports"
        assert attack.access in get_args(Access)
        assert attack.kind in get_args(Kind)
        assert attack.requires <= CAPABILITIES, "needs that no model can declare"
        assert all(isinstance(sentence, str) for sentence in attack.deviates)
        assert json.loads(json.dumps(attack.settings)) == attack.settings, "settings are JSON"
        assert not any(isinstance(v, dict) for v in attack.settings.values()), "settings are flat"

    def test_results_are_pictures(self) -> None:
        """8-bit pictures, or token ids, of the inputs' shape, one distance each, details in JSON."""
        model, x, _, _ = self.subject()
        crafted = self._craft()
        assert crafted.x_adv.dtype == (torch.uint8 if x.is_floating_point() else x.dtype)
        model.domain.check(crafted.images())
        assert crafted.x_adv.shape == x.shape
        assert crafted.linf.shape == crafted.l2.shape == (len(x),)
        assert crafted.seconds >= 0
        json.dumps(crafted.details)

    def test_distances_are_true(self) -> None:
        """Norms are of the rounded pictures; ids have none."""
        _, x, _, _ = self.subject()
        crafted = self._craft()
        if not x.is_floating_point():
            assert crafted.linf.isnan().all(), "token ids are names: no distance of them means anything"
            return
        change = (crafted.images().double() - x.double()).flatten(1)
        torch.testing.assert_close(crafted.linf, change.abs().amax(1), atol=1e-6, rtol=0)
        torch.testing.assert_close(crafted.l2, change.square().sum(1).sqrt(), atol=1e-5, rtol=0)

    def test_it_stays_inside_its_own_constraint(self) -> None:
        """After rounding to 8 bits; of words, counted anew from the ids."""
        assert not self._craft().details.get("outside_constraint"), "rounding or projection leaves the ball"

    def test_it_never_returns_something_cheaper_than_clean(self) -> None:
        """The clean picture is the first candidate."""
        if self.never_cheaper:
            model, x, _, _ = self.subject()
            crafted = self._craft()
            assert (model.infer(crafted.images()).macs >= model.infer(x).macs).all()

    def test_the_model_is_left_as_it_was(self) -> None:
        """Weights, buffers, gradients, each module's mode, requires_grad and the random states."""
        model, x, y, ids = self.subject()
        model.train()
        next(iter(model.children())).eval()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            parameter.grad = torch.full_like(parameter, 0.5)
        before = fingerprint(model)
        self.make().craft(
            model, x, y, ids=ids, surrogate=self.surrogates(), crafting=self.crafting(), metering=self.metering()
        )
        assert fingerprint(model) == before, "the attack changed the caller's model or the random state"

    def test_the_inputs_are_left_as_they_were(self) -> None:
        """Nothing is written into the caller's tensors."""
        model, x, y, ids = self.subject()
        kept = x.clone(), y.clone(), ids.clone()
        self.make().craft(
            model, x, y, ids=ids, surrogate=self.surrogates(), crafting=self.crafting(), metering=self.metering()
        )
        assert all(torch.equal(a, b) for a, b in zip(kept, (x, y, ids), strict=True))

    def test_it_works_under_no_grad(self) -> None:
        """A caller that evaluates need not know that attacks differentiate."""
        with torch.no_grad():
            inside = self._craft()
            assert not torch.is_grad_enabled()
        if self.make().deterministic:
            assert torch.equal(inside.x_adv, self._craft().x_adv)

    def test_the_same_seed_gives_the_same_bytes(self) -> None:
        """Whatever the global random state is; attacks that a meter decides say that they are not deterministic."""
        if not self.make().deterministic:
            assert self._craft().details.get("notes"), "nothing says that another run finds other pictures"
            return
        torch.manual_seed(1)
        one = self._craft(seed=7)
        torch.manual_seed(2)
        assert torch.equal(one.x_adv, self._craft(seed=7).x_adv)

    def test_chunks_and_order_change_nothing(self) -> None:
        """Random numbers belong to (seed, id), and samples do not touch each other; attacks that couple them say so."""
        if self.make().couples_samples or not self.make().deterministic:
            return
        whole = self._craft()
        order = torch.arange(len(whole.x_adv)).flip(0)
        parts = Crafted.join([self._craft(rows) for rows in order.split(5)])  # type: ignore[no-untyped-call]
        differ = (parts.x_adv[order] != whole.x_adv).flatten(1).any(1)
        # sums round differently from batch to batch, and optimisation can amplify that
        assert differ.float().mean() <= 0.1, f"{int(differ.sum())} of {len(differ)} results depend on the batch"

    def test_queries_are_counted_and_kept_within_budget(self) -> None:
        """One count an input where the access has a budget."""
        budget = self.make().settings.get("queries")
        crafted = self._craft()
        if budget is not None:
            assert crafted.queries is not None
            assert (crafted.queries <= budget).all(), "the budget is spent more than once"

    def test_a_budget_is_spent_or_the_reason_is_said(self) -> None:
        """Fewer queries than were granted need a note, else the report states a budget that was never used."""
        budget = self.make().settings.get("queries")
        crafted = self._craft()
        if budget is not None and crafted.queries is not None and (crafted.queries < budget).any():
            assert crafted.details.get("notes"), (
                f"{int(crafted.queries.max())} of {budget} queries were made, and no note says why"
            )

    def test_a_model_without_the_means_is_refused(self) -> None:
        """`applies_to` gives the reason, and craft refuses with it."""
        attack = self.make()
        if not attack.requires:
            return
        model, x, y, ids = self.subject()
        model.capabilities = frozenset()
        reason = attack.applies_to(model)
        assert reason
        refusal = ""
        try:
            attack.craft(
                model, x, y, ids=ids, surrogate=self.surrogates(), crafting=self.crafting(), metering=self.metering()
            )
        except CapabilityError as error:
            refusal = str(error)
        assert refusal, "craft ran on a model that lacks what the attack requires; raise CapabilityError"
        assert reason in refusal, "the refusal does not say why"

    def test_a_shared_change_is_crafted_on_pictures_of_its_own(self) -> None:
        """Without any it is refused, and so it is with those that judge it."""
        if not self.make().needs_crafting:
            return
        model, x, y, ids = self.subject()
        for pictures, error in ((None, CapabilityError), ((x, y), LeakageError)):
            refused = False
            try:
                self.make().craft(model, x, y, ids=ids, surrogate=self.surrogates(), crafting=pictures)
            except error:
                refused = True
            assert refused, f"crafted on {'nothing' if pictures is None else 'the pictures that judge it'}"

    def test_a_shared_change_is_the_same_for_all_that_share_it(self) -> None:
        """Added to each picture or pasted over it; at black and white the picture's range cuts it."""
        shared = self.make().settings.get("shared")
        if shared is None:
            return
        _, x, y, _ = self.subject()
        found = self._craft()
        after, before = found.x_adv.int(), (x * 255).round().int()
        change, cut = after - before, (after == 0) | (after == 255)
        labels = sorted(set(y.tolist()))
        for group in [y >= 0] if shared == "all" else [y == label for label in labels]:
            for other in group.nonzero().squeeze(1)[1:]:
                first = int(group.nonzero()[0])
                same = (change[other] == change[first]) | (after[other] == after[first]) | cut[other] | cut[first]
                assert same.all(), "two pictures got different changes"

    def test_progress_arrives(self) -> None:
        """The last word is (N, N), and it never runs back."""
        model, x, y, ids = self.subject()
        told: list[tuple[int, int]] = []
        self.make().craft(
            model,
            x,
            y,
            ids=ids,
            surrogate=self.surrogates(),
            crafting=self.crafting(),
            metering=self.metering(),
            on_progress=lambda done, n: told.append((done, n)),
        )
        assert told, "nothing was told"
        assert told[-1] == (len(x), len(x)), "the bar never fills"
        assert [done for done, _ in told] == sorted(done for done, _ in told)
