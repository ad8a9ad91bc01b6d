"""Write the table of docs/threat-models.md from the recipes in attacks/; a test holds the two together.

python docs/threat_models_page.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "threat-models.md"
BEGIN, END = "<!-- recipes: written by docs/threat_models_page.py -->", "<!-- end of recipes -->"
ORDER = ("white-box", "white-box, shared", "white-box, trained", "black-box", "black-box, answers", "transfer", "none")
WHO = {
    "white-box": "Has the net",
    "white-box, shared": "Has the net, and makes one change for all",
    "white-box, trained": "Has the net, and trains a generator beforehand",
    "black-box": "Sees what an input cost",
    "black-box, answers": "Sees what an input cost and what was answered",
    "transfer": "Has another net",
    "none": "Nobody: controls that look at nothing",
}


def attacker(recipe: Any) -> str:
    if recipe.search is not None and recipe.search.name == "generator":
        return "white-box, trained"
    if recipe.access.name == "white-box":
        return "white-box" if recipe.shared is None else "white-box, shared"
    if recipe.access.name == "black-box":
        return "black-box" if recipe.access.settings.get("returns", "cost") == "cost" else "black-box, answers"
    return recipe.access.name


def sees(recipe: Any) -> str:
    settings = recipe.access.settings
    if recipe.access.name == "white-box":
        trained = recipe.search is not None and recipe.search.name == "generator"
        made = (
            "; trains on other pictures" if trained else "" if recipe.shared is None else "; crafts on other pictures"
        )
        return f"weights, policy, gradients{made}"
    if recipe.access.name == "black-box":
        answers = "" if settings.get("returns", "cost") == "cost" else " and logits"
        cost = settings.get("cost", "cost")
        apart = (recipe.objective.settings if recipe.objective else {}).get("fit_on") == "disjoint"
        taught = recipe.search is not None and recipe.search.name == "taught"
        fitted = "; fits on other pictures" if apart or taught else ""
        asked = "in all" if recipe.shared else "an input"
        return f"{cost}{answers} of {settings.get('queries', 500)} queries {asked}{fitted}"
    return f"`{settings['surrogate']}`" if recipe.access.name == "transfer" else "nothing"


def may(recipe: Any) -> str:
    name, settings = recipe.constraint.name, recipe.constraint.settings
    bound = {"linf": "L∞", "l2": "L2", "l1": "L1"}.get(name)
    size = f"{bound} {settings['eps']}" if bound else f"a patch of {settings['area']:.0%}" if name == "patch" else ""
    if name == "words":
        size = f"{settings['share']:.0%} of a text's words, at least {settings['least']}"
    if name == "series-linf":
        size = f"each value of a series, {settings['share']:.0%} of its range"
    shared = {None: "", "all": ", one for all", "class": ", one a class"}[recipe.shared.name if recipe.shared else None]
    return (size or "anything") + shared


def wants(recipe: Any) -> str:
    if recipe.kind == "control":
        return "a control" + (": the dearest of its draws" if recipe.access.name == "black-box" else "")
    if recipe.aim == "cheap-and-wrong":
        return "cheap and wrong"
    if recipe.objective is not None and recipe.objective.name == "activation-norm":
        return "dense activations, whatever they cost"
    if recipe.objective is not None and recipe.objective.name == "one-gate":
        return "one gate open, whatever that costs"
    nearest = ", by the smallest change" if recipe.keep == "nearest" else ""
    return ("dear, every answer kept" if recipe.label == "keep" else "dear") + nearest


def table() -> str:
    from adaptbench.attacks.recipe import read_recipe

    recipes = {place.stem: read_recipe(place) for place in sorted((ROOT / "attacks").glob("*.yaml"))}
    lines: list[str] = []
    for who in ORDER:
        own = {name: recipe for name, recipe in recipes.items() if attacker(recipe) == who}
        lines += [f"**{WHO[who]}.**", "", "| recipe | sees | may change | wants | source |", "|---|---|---|---|---|"]
        lines += [
            f"| `{name}` | {sees(recipe)} | {may(recipe)} | {wants(recipe)} | {recipe.cite or '–'} |"
            for name, recipe in own.items()
        ]
        lines.append("")
    return "\n".join(lines)


def page(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
