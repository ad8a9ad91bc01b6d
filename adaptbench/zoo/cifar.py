"""Training the parts of the CIFAR systems: every shipped part is one of these, run by ``adaptbench train``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive import GatedNetwork, MultiExit, Split
from adaptbench.errors import UsageError
from adaptbench.models.cifar import CifarPlan, gated
from adaptbench.models.cifar import whole_net as cifar_exits
from adaptbench.models.exit_heads import attach_exits, backbone_of
from adaptbench.models.nearest_mean import attach_class_means, class_mean_exits
from adaptbench.models.resnet import grow
from adaptbench.zoo import checkpoints
from adaptbench.zoo.cifar_recipes import RECIPES
from adaptbench.zoo.recipes import OnEpoch
from adaptbench.zoo.training.exits import train_heads, train_jointly
from adaptbench.zoo.training.gates import BlockDrop, decisive, set_rate, skipnet_hybrid, skipnet_supervised
from adaptbench.zoo.training.loop import Training, fit
from adaptbench.zoo.training.losses import cross_entropy
from adaptbench.zoo.training.objective import fit_objective
from adaptbench.zoo.training.phase import Phase
from adaptbench.zoo.training.progress import EpochRecord

_HALF_MIN = 256


class CifarTrainer:
    """Trains parts of the CIFAR systems; each phase resumes from its own checkpoint, finished parts are read back.

    Args:
        plan: of the data set. train, calibration: splits; calibration figures go into the card, epoch by epoch.
        folder: zoo folder of the data set: finished parts. progress: folder of unfinished ones.
        recipe: "short" or "full". device: where it trains.
        on_epoch: told the phase's name and each epoch's record. seed: other than the recipe's.

    Raises:
        UsageError: no such recipe.
    """

    def __init__(
        self,
        plan: CifarPlan,
        train: Split,
        calibration: Split,
        folder: Path,
        *,
        recipe: str = "short",
        device: str = "cpu",
        on_epoch: OnEpoch | None = None,
        seed: int | None = None,
    ) -> None:
        if recipe not in RECIPES:
            raise UsageError(f"no recipe is called '{recipe}'.", todo=f"There are: {', '.join(RECIPES)}.")
        self.plan, self.train, self.calibration, self.folder = plan, train, calibration, folder
        self.scale, self.recipe, self.device = recipe, RECIPES[recipe], device
        self.seed = self.recipe.seed if seed is None else seed
        self._on_epoch = on_epoch
        self.history: list[dict[str, Any]] = []

    def part(self, name: str) -> nn.Module:
        """The part of a name ("resnet20", "resnet20-paper-heads", "skipnet20"), trained or read back.

        Raises:
            UsageError: no such part.
        """
        module, train = self._plan_for(name)
        place = self.folder / f"{name}.safetensors"
        if place.exists():
            tensors, _ = checkpoints.load(place)
            checkpoints.load_into(module, tensors, name=str(place))
            return module.eval()
        self.history = []
        train()
        module.to("cpu")
        checkpoints.save(place, halved(module.state_dict()), self._card(name, module))
        # what is kept is what later parts build on
        tensors, _ = checkpoints.load(place)
        checkpoints.load_into(module, tensors)
        return module.eval()

    def _plan_for(self, name: str) -> tuple[nn.Module, Callable[[], None]]:
        """The part's module, fresh, and what trains it."""
        plan = self.plan
        first, _, rest = name.partition("-")
        depth = int(first.removeprefix("resnet")) if first.removeprefix("resnet").isdigit() else 0
        if depth and not rest:
            net = self._fresh(lambda: plan.net(depth))
            return net, lambda: self._net(depth, net)
        if depth and rest == "class-means":
            means = class_mean_exits(self._fresh(lambda: plan.net(depth)))
            return heads_of(means), lambda: self._class_means(first, means)
        if depth and rest.endswith("-heads"):
            kind = rest.removesuffix("-heads")
            model = self._fresh(lambda: attach_exits(plan.net(depth), kind))
            return heads_of(model), lambda: self._heads(first, kind, model)
        if depth and rest.endswith("-joint"):
            kind = rest.removesuffix("-joint")
            joined = self._fresh(lambda: attach_exits(plan.net(depth), kind))
            return joined, lambda: self._joint(first, name, joined)
        if name.startswith("skipnet"):
            gates = self._fresh(lambda: gated(plan, "rnn" if name.endswith("-rnn") else "ffgate2"))
            return gates, lambda: self._gates(gates)
        if name.startswith("blockdrop"):
            planned = self._fresh(lambda: gated(plan, "blockdrop"))
            return planned, lambda: self._plan(planned)
        if name in ("msdnet", "densenet121"):
            whole = self._fresh(lambda: cifar_exits(plan, name))
            return whole, lambda: self._scratch(name, whole)
        raise UsageError(
            f"no part is called '{name}'.",
            todo="Parts: resnetD, resnetD-KIND-heads, resnetD-KIND-joint, resnetD-class-means, skipnetD, skipnetD-rnn, "
            "blockdropD, msdnet, densenet121.",
        )

    def _fresh(self, build: Callable[[], Any]) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return build()

    def _fit(self, phase: Phase, name: str, module: nn.Module, loss: Callable[..., Tensor], judge: Any) -> None:
        module.to(self.device)
        done = fit(
            module,
            self.train,
            loss,
            phase,
            **self._how(name),
            evaluate=judge,
            channels_last=True,
        )
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self._remember(name, done)

    def _how(self, name: str) -> dict[str, Any]:
        """What every training loop is told of a phase, its settings aside."""
        return {
            "seed": self.seed,
            "checkpoint": self.folder / "progress" / f"{name}.progress.safetensors",
            "on_epoch": self._teller(name),
        }

    def _remember(self, name: str, done: Training) -> None:
        self.history += [
            {
                "phase": name,
                "epoch": r.epoch,
                "loss": round(r.loss, 5),
                **{k: round(v, 5) for k, v in r.metrics.items()},
            }
            for r in done.history
        ]

    def _teller(self, name: str) -> Callable[[EpochRecord], None] | None:
        tell = self._on_epoch
        return None if tell is None else lambda record: tell(name, record)

    def _net(self, depth: int, net: nn.Sequential) -> None:
        if depth not in self.recipe.nets:
            raise UsageError(
                f"there is no recipe for depth {depth}.", todo=f"Depths: {', '.join(map(str, self.recipe.nets))}."
            )
        if start := self.recipe.grown.get(depth):
            grow(self._backbone(f"resnet{start}"), net)  # type: ignore[arg-type]
        self._fit(self.recipe.nets[depth], f"resnet{depth}", net, cross_entropy, self._judge)

    def _backbone(self, host: str) -> nn.Module:
        """A trained net; its history is its own card's."""
        found = self.part(host)
        self.history = []
        return found

    def _heads(self, host: str, kind: str, model: MultiExit) -> None:
        backbone_of(model).load_state_dict(self._backbone(host).state_dict())
        model.to(self.device)
        name = f"{host}-{kind}-heads"
        done = train_heads(
            model,
            self.train,
            self.recipe.heads,
            **self._how(name),
        )
        self._remember(name, done)

    def _class_means(self, host: str, model: MultiExit) -> None:
        net = self._backbone(host)
        found = attach_class_means(net, self.train)  # type: ignore[arg-type]
        model.load_state_dict(found.state_dict())

    def _joint(self, host: str, name: str, model: MultiExit) -> None:
        backbone_of(model).load_state_dict(self._backbone(host).state_dict())
        self._jointly(self.recipe.joint, name, model, "distilled")

    def _scratch(self, name: str, model: MultiExit) -> None:
        self._jointly(self.recipe.scratch, name, model, "uniform" if name == "msdnet" else "distilled")

    def _jointly(self, phase: Phase, name: str, model: MultiExit, weighing: str) -> None:
        model.to(self.device)
        done = train_jointly(
            model,
            self.train,
            phase,
            weighing,
            **self._how(name),
            channels_last=True,
        )
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self._remember(name, done)

    def _take_backbone(self, model: GatedNetwork) -> None:
        """The host's trained weights into a gated net."""
        source = dict(self._backbone(f"resnet{self.plan.host}").named_children())
        model.stem.load_state_dict(nn.Sequential(source["normalise"], source["stem"]).state_dict())
        blocks = [module for name, module in source.items() if name.startswith("stage")]
        for body, block in zip(model.bodies, blocks, strict=True):
            body.load_state_dict(block.body.state_dict())  # type: ignore[union-attr]
        model.head.load_state_dict(source["head"].state_dict())
        model.to(self.device)

    def _gates(self, model: GatedNetwork) -> None:
        self._take_backbone(model)
        first, second = self.recipe.gates
        self._straight_through(first, "gates-supervised", model, self.recipe.gate_rate)
        self._fit(second, "gates-hybrid", model, skipnet_hybrid(self.recipe.gate_alpha), None)
        set_rate(model, self._looked_at(), self.recipe.gate_rate)

    def _plan(self, model: GatedNetwork) -> None:
        self._take_backbone(model)
        first, second = self.recipe.plan
        rate = self.recipe.plan_rate
        if rate is None:
            self._reinforce(first, "blockdrop-0", BlockDrop(model, curriculum=True, entropy=0.1))
        else:
            planner: nn.Module = model.gates.planner  # type: ignore[assignment]
            begun = {k: v for k, v in self._backbone("resnet8").state_dict().items() if not k.startswith("head.")}
            planner.load_state_dict(planner.state_dict() | begun)
            self._straight_through(first, "blockdrop-0", model, rate)
        self._reinforce(second, "blockdrop-1", BlockDrop(model, joint=True, alpha=self.recipe.plan_alpha))

    def _straight_through(self, phase: Phase, name: str, model: GatedNetwork, rate: float) -> None:
        """Net and gates together; then margins that open `rate` of the blocks and are drawn as they decide."""
        self._fit(phase, name, model, skipnet_supervised(rate=rate, price=1.0), None)
        x = self._looked_at()
        set_rate(model, x, rate)
        decisive(model, x)

    def _looked_at(self) -> Tensor:
        return self.train.images(0, 500).to(self.device)

    def _reinforce(self, phase: Phase, name: str, objective: BlockDrop) -> None:
        done = fit_objective(
            objective,
            self.train,
            phase,
            **self._how(name),
            channels_last=True,
        )
        objective.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self._remember(name, done)

    @torch.no_grad()
    def _judge(self, net: nn.Module) -> dict[str, float]:
        """Accuracy and cross-entropy on calibration: for the card, never for a choice of weights."""
        right, loss = 0, 0.0
        for x, y, _ in self.calibration.chunks(500):
            z = net(x.to(self.device).contiguous(memory_format=torch.channels_last)).float().cpu()
            right += int((z.argmax(1) == y).sum())
            loss += float(F.cross_entropy(z, y, reduction="sum"))
        n = len(self.calibration)
        return {"accuracy_calibration": right / n, "nll": loss / n}

    def _card(self, name: str, module: nn.Module) -> dict[str, Any]:
        return {
            "part": name,
            "data": self.plan.data,
            "train_sha256": self.train.sha256,
            "recipe": self.scale,
            "settings": self.recipe.of(name),
            "seed": self.seed,
            "parameters": sum(p.numel() for p in module.parameters()),
            "stored": "float16 weights; statistics, biases and small tensors float32",
            "torch": str(torch.__version__),
            "device": self.device,
            "command": f"adaptbench train {name} --data {self.plan.data}"
            + (f" --recipe {self.scale}" if self.scale != "short" else ""),
            "full_command": f"adaptbench train {name} --data {self.plan.data} --recipe full --device cuda",
            "history": self.history,
        }


def heads_of(model: MultiExit) -> nn.ModuleList:
    """The bolted-on heads, without the net's own."""
    return nn.ModuleList(list(model.heads)[:-1])


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Large weight matrices and kernels in float16; statistics, biases and small tensors as they are."""
    return {
        name: t.half() if t.is_floating_point() and t.ndim >= 2 and t.numel() >= _HALF_MIN else t
        for name, t in tensors.items()
    }
