"""What every adaptive model must hold to.

Subclass in a test file and give `model`::

    class TestMyModel(ModelConformance):
        def model(self):
            return my_model()

pytest collects the checks; `check_model(model)` runs them all in plain Python.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.model import AdaptiveModel, frozen
from adaptbench.adaptive.outcome import Inference
from adaptbench.adaptive.splits import Split
from adaptbench.adaptive.token_network import TokenNetwork
from adaptbench.adaptive.tokens import followed
from adaptbench.errors import CapabilityError, LeakageError
from adaptbench.testing import views
from adaptbench.testing.compare import agree, close, refuses, rows_of, rows_seen, same
from adaptbench.testing.drawn import drawn_inputs
from adaptbench.testing.refusals import outside_is_refused
from adaptbench.testing.relaxation import expected_macs_settle, gradients_reach, margins_follow_decisions
from adaptbench.testing.serving import served_as_inferred
from adaptbench.testing.side_effects import nobody_writes, nothing_left_changed
from adaptbench.testing.token_views import who_left_does_not_run


class ModelConformance:
    """The laws of an adaptive model, one check each; a failure says which sample broke which law.

    Attributes:
        n_inputs: pictures drawn where `inputs` gives none.
        follows_input: False for a model whose decisions do not depend on the picture by design.
    """

    n_inputs: ClassVar[int] = 64
    follows_input: ClassVar[bool] = True

    @abstractmethod
    def model(self) -> AdaptiveModel:
        """The model under test; called once for all checks."""

    def inputs(self) -> Tensor | None:
        """(N, …) inside the domain; None: drawn, pictures from flat to full contrast, texts from short to long."""
        return None

    # ------------------------------------------------------------------ what the checks work on

    def _given(self) -> tuple[AdaptiveModel, Tensor, Tensor]:
        kept: tuple[AdaptiveModel, Tensor, Tensor] | None = type(self).__dict__.get("_kept")
        if kept is None:
            model = self.model()
            x = self.inputs()
            kept = _prepare(model, x, self.n_inputs)
            type(self)._kept = kept  # type: ignore[attr-defined]
        return kept

    def _infer(self, x: Tensor | None = None, **how: Any) -> Inference:
        model, default, labels = self._given()
        if model.needs_labels and "labels" not in how and x is None:
            how["labels"] = labels
        return model.infer(default if x is None else x, **how)

    def _queues(self) -> list[dict[str, Any]]:
        """Calls through stage queues, where the model has them."""
        model, x, _ = self._given()
        return [{"mode": "queues", "full": full} for full in (3, len(x)) if "queues" in model.modes]

    def _relaxes(self) -> bool:
        model, _, _ = self._given()
        return "gradients" in model.capabilities and not model.needs_labels

    # ------------------------------------------------------------------ the checks

    def test_it_describes_itself(self) -> None:
        """Names, sizes and costs that records and attacks rely on."""
        model, x, _ = self._given()
        inference = self._infer()
        n, nodes = len(x), len(model.node_names)
        assert len(set(model.node_names)) == nodes > 0, "node names are column names: they must differ"
        assert len(set(model.exit_names)) == len(model.exit_names) > 0, "exit names must differ"
        assert model.capabilities <= {"gradients", "exit_logits", "queries"}, "an unknown capability"
        assert len(model.node_macs) == nodes, "node_macs has one entry a node"
        answer = (n, model.n_classes, *(x.shape[-2:] if model.per_pixel else ()))
        form = "(N, C, H, W)" if model.per_pixel else "(N, C)"
        assert inference.logits.shape == answer, f"logits {tuple(inference.logits.shape)}, not {form}"
        assert (inference.path.shape, inference.path.dtype) == ((n, nodes), torch.bool), "path is (N, V) bool"
        for name, column in (("macs", inference.macs), ("exit", inference.exit)):
            assert (column.shape, column.dtype) == ((n,), torch.int64), f"{name} is (N,) int64"
        assert 0 <= int(inference.exit.min()) <= int(inference.exit.max()) < len(model.exit_names), (
            "exit indexes exit_names"
        )
        if not model.needs_labels:
            assert isinstance(model.uncounted, tuple)
            assert isinstance(model.policy_name, str)

    def test_the_hard_pass_is_running_everything_and_choosing_afterwards(self) -> None:
        """Law 1: skipping changes what is paid, not what is answered."""
        model, x, _ = self._given()
        if model.needs_labels:
            return
        inference = self._infer()
        if (dense := views.chosen_afterwards(model, x)) is None:
            return
        path, logits, tie = dense
        sure = ~(inference.tie | tie)
        same(inference.path, path, sure, "the path", "the hard pass", "choosing afterwards")
        close(inference.logits, logits, sure, "the hard pass", "choosing afterwards")

    def test_nobody_writes_into_what_others_read(self) -> None:
        """Law 1: an in-place operation reaches neither the caller's pictures nor what another part of the net reads."""
        model, x, _ = self._given()
        nobody_writes(model, x, self._infer, relaxes=self._relaxes())

    def test_no_sample_touches_another(self) -> None:
        """Law 1: batch 1, odd batches and the whole batch agree, ties aside."""
        whole = self._infer()
        _, x, labels = self._given()
        sure = (~whole.tie).float().mean()
        assert sure >= 0.5, f"only {sure:.0%} of the decisions are clear of a tie: the checks below would be empty"
        agree(whole, self._infer(mode="per-sample"), "the whole batch", "one sample at a time")
        for how in self._queues():
            agree(whole, self._infer(**how), "the whole batch", f"stage queues of {how['full']}")
        for size in (7, len(x) // 2 + 1):
            parts = [self._infer(x[i : i + size], labels=labels[i : i + size]) for i in range(0, len(x), size)]
            agree(whole, Inference.join(parts), "the whole batch", f"batches of {size}")

    def test_the_order_of_a_batch_does_not_matter(self) -> None:
        """Law 1, again: a shuffled batch gives the shuffled results."""
        _, x, labels = self._given()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(7))
        whole = self._infer()
        back = order.argsort()
        mixed = self._infer(x[order], labels=labels[order])
        agree(whole, rows_of(mixed, back), "the batch in order", "the batch shuffled")

    def test_the_same_call_gives_the_same_result(self) -> None:
        """No hidden counter or draw: two identical calls are identical to the bit."""
        one, two = self._infer(), self._infer()
        assert torch.equal(one.logits, two.logits), "logits differ between two identical calls"
        assert torch.equal(one.path, two.path), "paths differ between two identical calls"
        assert torch.equal(one.macs, two.macs), "MACs differ between two identical calls"

    def test_what_is_skipped_does_not_run(self) -> None:
        """Law 2: a node's module sees exactly the samples whose path it is on, and none other."""
        model, x, _labels = self._given()
        modules = views.node_modules(model)
        force = views.mixed_paths(model, len(x))
        if model.needs_labels:  # an oracle runs everything to choose
            calls: list[dict[str, Any]] = [{"force": force}]
        else:
            calls = [{}, *self._queues(), {"force": force}, *({"force": path} for path in model.paths()[:8])]
            calls += [how | {"force": force} for how in self._queues()]
        for how in calls:
            with rows_seen(modules) as seen:
                _ = model.min_macs  # hooks have nodes counted anew; that is not what is looked at
                seen.update(dict.fromkeys(seen, 0))
                inference = self._infer(**how)
            for v, rows in seen.items():
                want = int(inference.path[:, v].sum())
                assert rows == want, (
                    f"node '{model.node_names[v]}' is on the path of {want} samples and ran on {rows}: "
                    "what is skipped must not run"
                )
        if isinstance(model, TokenNetwork):
            who_left_does_not_run(model, calls, self._infer)

    def test_macs_are_the_sum_over_the_path(self) -> None:
        """Law 3: nodes on the path, policy, prediction and gates are all that is counted."""
        model, x, _ = self._given()
        for inference in (self._infer(), self._infer(force=views.mixed_paths(model, len(x)))):
            extra = views.overhead_macs(model, inference)
            if extra is None:
                return
            total = (inference.path.cpu() * torch.tensor(model.node_macs)).sum(1) + extra
            same(
                inference.macs.cpu(),
                total,
                torch.ones(len(x), dtype=torch.bool),
                "MACs",
                "macs",
                "Σ path · node MACs + policy",
            )

    def test_macs_are_what_the_dispatcher_saw(self) -> None:
        """Law 3: on a mixed batch the records add up to the count of what really ran."""
        model, x, _ = self._given()
        calls: list[dict[str, Any]] = [{"force": views.mixed_paths(model, len(x))}]
        if not model.needs_labels:
            calls += [{}, *self._queues()]
        _ = model.min_macs
        for how in calls:
            with counting() as counter:
                inference = self._infer(**how)
            claimed = int(inference.macs.sum())
            assert counter.macs == claimed, (
                f"the records claim {claimed} MACs, the dispatcher saw {counter.macs} ({dict(counter.by_operator)}): "
                "something runs unrecorded, or is recorded and does not run"
            )
            hidden = set(counter.uncounted) - set(model.uncounted)
            assert not hidden, f"uncounted operators ran that model.uncounted does not name: {sorted(hidden)}"

    def test_serving_is_the_same_pass(self) -> None:
        """Law 3: what is timed answers as `infer` does and runs what `infer` runs, and its stretches have names."""
        model, x, _ = self._given()
        if not model.needs_labels:  # a bound is not served
            served_as_inferred(model, x)

    def test_margins_have_the_sign_of_the_decisions(self) -> None:
        """Law 4: along the path taken, a margin is > 0 exactly where the sample went on spending."""
        model, x, _ = self._given()
        if self._relaxes():
            margins_follow_decisions(model, x, self._infer())

    def test_expected_macs_become_the_executed_ones(self) -> None:
        """Law 4: as the temperature falls; and at no temperature do they leave [min, max]."""
        model, x, _ = self._given()
        if self._relaxes():
            expected_macs_settle(model, x, self._infer())

    def test_costs_stay_between_the_extremes_and_reach_them(self) -> None:
        """Law 5: min_macs and max_macs are costs of real paths, the first two of paths()."""
        model, _x, _ = self._given()
        inference = self._infer()
        paths = model.paths()
        assert model.min_macs <= int(inference.macs.min()), (
            f"a sample cost {int(inference.macs.min())}, less than min_macs"
        )
        assert int(inference.macs.max()) <= model.max_macs, (
            f"a sample cost {int(inference.macs.max())}, more than max_macs"
        )
        for what, path, want in (
            ("cheapest", paths[0], model.min_macs),
            ("dearest", paths[min(1, len(paths) - 1)], model.max_macs),
        ):
            macs = self._infer(force=path).macs
            assert (macs == want).all(), f"the {what} path costs {sorted(set(macs.tolist()))}, the model says {want}"

    def test_paths_cover_every_node_and_are_followed(self) -> None:
        """Warm-up and profiling force paths: each is taken as given, together they run everything."""
        model, x, _ = self._given()
        paths = model.paths()
        assert torch.stack(paths).any(0).all(), "paths() leaves a node out: it would run cold the first time"
        for path in paths:
            got = self._infer(x[:2], force=path).path
            assert (got == path.to(got.device)).all(), (
                f"forced on {_names(model, path)}, the model took {_names(model, got[0])}"
            )
        if self._relaxes() and (
            decided := views.hard_decisions(model, self._infer(x[:1], force=paths[min(1, len(paths) - 1)]))
        ):
            assert torch.equal(decided[0][0], model.dearest_decisions.cpu()), (
                "dearest_decisions are not those of the dearest path"
            )

    def test_nothing_is_left_changed(self) -> None:
        """Law 6: flags, weights, buffers, gradients, random state and the input are as before."""
        model, x, _ = self._given()
        nothing_left_changed(model, x, self._infer, relaxes=self._relaxes())

    def test_gradients_reach_the_input(self) -> None:
        """White-box attacks need them: of expected MACs, margins and exit logits, finite, not all zero."""
        model, x, _ = self._given()
        if self._relaxes():
            gradients_reach(model, x, follows_input=self.follows_input)

    def test_calling_the_model_is_inference(self) -> None:
        """Forward returns the same logits, with gradients, so that any torch tool can use the model."""
        model, x, _ = self._given()
        if model.needs_labels:
            return
        inference = self._infer()
        with frozen(model), followed(x) as (given, _):
            logits = model(given if "gradients" in model.capabilities else x)
        close(inference.logits, logits.detach(), ~inference.tie, "infer", "calling the model")
        if "gradients" in model.capabilities:
            assert logits.requires_grad, "model(x) has no gradient"

    def test_inputs_outside_the_domain_are_refused(self) -> None:
        """A wrong shape, type or value is an error that names it, never a wrong figure."""
        model, x, labels = self._given()
        outside_is_refused(model, x, labels, self._infer, relaxes=self._relaxes())

    def test_chance_follows_the_sample(self) -> None:
        """A policy that draws does so from each sample's seed alone: no batch, order or global state changes a draw."""
        model, x, _ = self._given()
        if model.needs_labels:
            return
        seeds = torch.arange(len(x), dtype=torch.int64, device=x.device) * 7919 + 11
        one = self._infer(seeds=seeds)
        torch.rand(3)
        order = torch.arange(len(x) - 1, -1, -1)
        agree(
            one, rows_of(self._infer(x[order], seeds=seeds[order]), order), "seeds in order", "seeds in reverse order"
        )
        if not views.draws(model):
            agree(one, self._infer(), "one choice of seeds", "another, though the policy does not draw")
            return
        if not len(model.dearest_decisions):
            return
        few = x[:8]  # policies that draw agree on some pictures
        drawn = self._infer(few.repeat_interleave(64, 0), seeds=torch.arange(64, device=x.device).repeat(len(few)))
        ways = drawn.path.view(len(few), 64, -1)
        assert (ways != ways[:, :1]).any(), "64 seeds gave one path, whatever the picture: the policy ignores its seeds"

    def test_the_static_reference_costs_what_it_says(self) -> None:
        """macs_full is the dispatcher's count of run_reference: savings are shares of it."""
        model, x, _ = self._given()
        _ = model.min_macs
        with counting() as counter:
            logits = model.run_reference(x)
        answer = (len(x), model.n_classes, *(x.shape[-2:] if model.per_pixel else ()))
        assert logits.shape == answer, "the reference gives no logits"
        assert torch.isfinite(logits).all(), "the reference gives NaN or infinity"
        assert not logits.requires_grad, "the reference runs without gradients: it is timed"
        assert counter.macs == model.macs_full * len(x), (
            f"the reference ran {counter.macs / len(x):.1f} MACs a sample, macs_full says {model.macs_full}"
        )

    def test_an_oracle_asks_for_labels(self) -> None:
        """A policy that looks at the label says so, and is no target for gradients."""
        model, x, labels = self._given()
        if not model.needs_labels:
            return
        refuses(lambda: model.infer(x), CapabilityError, "an oracle without labels")
        refuses(lambda: model.relax(x), CapabilityError, "gradients of an oracle")
        assert "gradients" not in model.capabilities, "an oracle offers no gradients; its capabilities must not say so"
        model.infer(x, labels=labels)

    def test_the_test_split_is_not_logged(self) -> None:
        """Policies are fitted on calibration samples; a test split is refused."""
        model, x, _ = self._given()
        kind = torch.uint8 if x.ndim == 4 else torch.float32
        inputs = torch.zeros(4, *x.shape[1:], dtype=kind) if x.is_floating_point() else x[:1].expand(4, -1)
        names = tuple(f"class{c}" for c in range(model.n_classes))
        for role in ("test", "train"):
            labels = (
                torch.zeros(4, *x.shape[-2:], dtype=torch.uint8)
                if model.per_pixel
                else torch.zeros(4, dtype=torch.int64)
            )
            split = Split("planted", role, inputs, labels, torch.arange(4), names)
            try:
                model.log(split)
            except (LeakageError, CapabilityError):
                continue
            raise AssertionError(f"log() took a {role} split; only calibration samples may shape a policy")


def check_model(
    model: AdaptiveModel, x: Tensor | None = None, *, n_inputs: int = 64, follows_input: bool = True
) -> None:
    """Every check of `ModelConformance` on one model.

    Args:
        model: any adaptive model.
        x: (N, C, H, W) inside its domain (default: drawn).
        n_inputs: how many to draw.
        follows_input: False where decisions do not depend on the picture by design.

    Raises:
        AssertionError: a law does not hold; the message names it.
    """
    kit = kit_of(model, x, n_inputs=n_inputs, follows_input=follows_input)
    for name in vars(ModelConformance):  # in the order they stand: the plain ones first
        if name.startswith("test_"):
            getattr(kit, name)()


def kit_of(
    model: AdaptiveModel, x: Tensor | None = None, *, n_inputs: int = 64, follows_input: bool = True
) -> ModelConformance:
    """The checks of `ModelConformance`, each a method, ready for one model; arguments as `check_model`."""
    settings = {"_kept": _prepare(model, x, n_inputs), "follows_input": follows_input}
    kit: ModelConformance = type("Check", (ModelConformance,), settings)()
    return kit


def _prepare(model: AdaptiveModel, x: Tensor | None, n: int) -> tuple[AdaptiveModel, Tensor, Tensor]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    x = drawn_inputs(model.domain, n, generator) if x is None else x.detach()
    labels = torch.randint(model.n_classes, (len(x),), generator=generator)
    kind = next((p.dtype for p in model.parameters()), x.dtype)
    return model, x.to(device, kind) if x.is_floating_point() else x.to(device), labels.to(device)


def _names(model: AdaptiveModel, path: Tensor) -> str:
    return " → ".join(name for name, on in zip(model.node_names, path.tolist(), strict=True) if on)
