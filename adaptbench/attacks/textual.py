"""Attacks that edit words: white-box, by queries, and the control of equal edits; one search under all three."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, TokenDomain
from adaptbench.attacks.access import BlackBox
from adaptbench.attacks.base import Attack, Task, Unaudited, one_path
from adaptbench.attacks.composed import Parts, RecipeAttack
from adaptbench.attacks.objectives import GradientObjective
from adaptbench.attacks.word_control import RandomWords
from adaptbench.attacks.word_edits import Thesaurus, WordEdits, words_apart
from adaptbench.attacks.word_queries import QueryJudge
from adaptbench.attacks.word_search import Text, WhiteJudge, WordBeam, WordJudge, WordSearch
from adaptbench.data.wordpiece import FIRST, LAST, PAD, UNKNOWN
from adaptbench.errors import RecipeError


class TextAttack(RecipeAttack):
    """Edits of words within a budget; what comes back are rows of token ids.

    Args:
        parts: of the recipe; its constraint is `WordEdits`, its search a `WordSearch`.
        via: what may be asked how often; None where the attacker looks inside, or asks nothing.
    """

    def __init__(self, parts: Parts, via: BlackBox | None) -> None:
        super().__init__(parts)
        assert isinstance(parts.constraint, WordEdits)
        assert isinstance(parts.search, WordSearch)
        self.edits, self.search, self.via = parts.constraint, parts.search, via
        if via is not None:
            self.requires |= {"queries"}

    @property
    def settings(self) -> dict[str, Any]:
        """With the budget of queries, and what is returned of them."""
        asked = {} if self.via is None else {"queries": self.via.queries, "returns": self.via.returns}
        told = super().settings
        return {**told, "moves": list(told["moves"]), **asked}

    def _wrong_inputs(self, model: AdaptiveModel) -> str | None:
        if not isinstance(model.domain, TokenDomain):
            return "it edits words, and the model takes pictures"
        if not {PAD, UNKNOWN, FIRST, LAST} <= set(model.domain.vocabulary):
            return "it edits words, and the model's domain names no pieces of a WordPiece vocabulary to write them with"
        return None

    def _why_not(self, model: AdaptiveModel) -> str | None:
        if self.parts.objective is not None:
            return self.parts.objective.applies_to(model)
        return None if self.kind == "control" and self.via is None else one_path(model)

    def _judge(self, task: Task, words: Thesaurus) -> WordJudge:
        how = (words, task.ids, task.seed, task.progress)
        if self.via is not None:
            return QueryJudge(*how, via=self.via)
        if isinstance(self.parts.objective, GradientObjective):
            by_cost = isinstance(self.search, WordBeam) and self.search.by == "cost"
            return WhiteJudge(*how, objective=self.parts.objective, clean=task.x, y=task.y, by_cost=by_cost)
        return WordJudge(*how)

    def _craft(self, task: Task) -> Unaudited:
        words = Thesaurus(task.model, self.edits)
        judge = self._judge(task, words)
        texts = [Text(said, self.edits.budget(said)) for said in map(words.words, task.x)]
        with task.model.steady():
            costs = judge.begin(texts)
            for text, cost in zip(texts, costs, strict=True):
                text.beam = [(cost, {})]
            self.search.hunt(texts, judge)
        rows = [
            words.row(text.words, text.best[1]) if text.best[1] else clean.tolist()
            for text, clean in zip(texts, task.x, strict=True)
        ]
        task.progress(len(texts), len(texts))
        made = torch.tensor(rows, dtype=task.x.dtype, device=task.x.device)
        edited = [len(text.best[1]) for text in texts]
        sizes = [max(1, len(text.words)) for text in texts]
        details: dict[str, Any] = {
            "words": sum(sizes),
            "words_edited": sum(edited),
            "texts_edited": sum(n > 0 for n in edited),
            "edited_share_mean": sum(n / size for n, size in zip(edited, sizes, strict=True)) / len(texts),
            "words_edited_most": float(max(edited)),
            **judge.told(texts),
        }
        return Unaudited(made, judge.used(), details)

    def _measured(
        self, clean: Tensor, x_adv: Tensor, model: AdaptiveModel
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
        """Ids have no distance; what differs in more words than may be edited is outside, counted anew from the ids."""
        outside = beyond_budget(model, self.edits, clean, x_adv)
        nowhere = torch.full((len(clean),), torch.nan, dtype=torch.float64)
        return nowhere, nowhere.clone(), outside, {}


def beyond_budget(model: AdaptiveModel, edits: WordEdits, clean: Tensor, x_adv: Tensor) -> Tensor:
    """(N,) bool: texts that differ from the clean ones in more words than may be edited, counted anew from the ids.

    Args:
        model: whose pieces the ids are. edits: whose budget is held. clean, x_adv: (N, L) ids.
    """
    words = Thesaurus(model, WordEdits(moves=()))

    def too_far(before: Tensor, after: Tensor) -> bool:
        if torch.equal(before, after):
            return False
        own = words.words(before)
        full = bool((after != words.tokenizer.pad).all())
        return words_apart(own, words.words(after), cut=full) > edits.budget(own)

    return torch.tensor([too_far(a, b) for a, b in zip(clean.cpu(), x_adv.cpu(), strict=True)], dtype=torch.bool)


def word_attack(parts: Parts, access: Any, where: str) -> Attack:
    """Put a recipe of text together.

    Raises:
        RecipeError: a part that belongs to pictures, or access that does not fit the search.
    """
    search, edits, name = parts.search, parts.constraint, parts.recipe.access.name
    if not isinstance(edits, WordEdits) or not isinstance(search, WordSearch):
        raise RecipeError(
            f"{where}: the constraint '{edits.name}' and the search '{search.name}' are not both of words.",
            why="Pixels and words are changed by other means.",
            todo="Write constraint: words and search: word-beam (or random-words).",
        )
    objective, via = parts.objective, access if isinstance(access, BlackBox) else None
    aims = isinstance(objective, GradientObjective)
    fits = name in (("none", "black-box") if isinstance(search, RandomWords) else ("white-box", "black-box"))
    if not fits or aims != (name == "white-box") or (objective is not None and not aims):
        raise RecipeError(
            f"{where}: the search '{search.name}' with access {name} and "
            f"{'no objective' if objective is None else f'the objective {objective.name}'} is no attack.",
            todo="White-box takes an objective, all others none; random-words has access none or black-box.",
        )
    if via is not None and via.cost != "macs":
        raise RecipeError(f"{where}, access.black-box.cost: words are searched by counted MACs.", todo="Leave it out.")
    if parts.recipe.keep != "first" or parts.recipe.label != "free" or parts.recipe.aim != "dearest":
        raise RecipeError(f"{where}: keep, label and aim cannot be asked of edits of words.", todo="Leave them out.")
    if parts.recipe.precision != "fp32":
        raise RecipeError(
            f"{where}: precision cannot be asked of edits of words.",
            why="One gradient ranks the edits of a step, and passes without gradients choose: there is little to save.",
            todo="Leave it out.",
        )
    return TextAttack(parts, via)
