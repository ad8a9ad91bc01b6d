"""Names of the parts of attacks, and attacks that plug-ins bring; recipes are files, see `catalogue`."""

from __future__ import annotations

from adaptbench.registry import Registry

OBJECTIVES = Registry(
    "objective",
    "objectives",
    {
        "hinge-margins": (
            "adaptbench.attacks.objectives:HingeMargins",
            "push each decision of the dearest path past its boundary",
        ),
        "uniform-heads": ("adaptbench.attacks.objectives:UniformHeads", "make every head but the last undecided"),
        "expected-macs": ("adaptbench.attacks.objectives:ExpectedMacs", "raise the relaxed cost itself"),
        "next-closed": ("adaptbench.attacks.decisions:NextClosed", "open the decisions of the dearest path in turn"),
        "logit-gap": (
            "adaptbench.attacks.decisions:LogitGap",
            "close the gap between the two likeliest classes of heads",
        ),
        "weighted-heads": (
            "adaptbench.attacks.decisions:WeightedHeads",
            "make heads undecided where the deployed rule would leave",
        ),
        "cheap-and-wrong": ("adaptbench.attacks.decisions:CheapAndWrong", "leave early with a wrong answer"),
        "near-margins": (
            "adaptbench.attacks.decisions:NearMargins",
            "push decisions past their boundaries, those that are near it most",
        ),
        "guarded-gates": ("adaptbench.attacks.gates:GuardedGates", "open closed gates without closing open ones"),
        "gate-power": ("adaptbench.attacks.gates:GatePower", "raise a power norm of the gates"),
        "one-gate": ("adaptbench.attacks.gates:OneGate", "open one gate, whatever the others do"),
        "ponder-cost": ("adaptbench.attacks.ponder:PonderCost", "raise the ponder cost of a halting net"),
        "activation-norm": (
            "adaptbench.attacks.activations:ActivationNorm",
            "make activations large and dense; not after the counted cost",
        ),
        "label-margin": ("adaptbench.attacks.mixtures:LabelMargin", "keep the answer at the dearest path's exit"),
        "waffle": ("adaptbench.attacks.text_objectives:WaffleScore", "make all exits of a chain near uniform"),
        "same": (
            "adaptbench.attacks.text_objectives:SameScore",
            "make later exits undecided and disagree with the exit before",
        ),
        "mixed": ("adaptbench.attacks.mixtures:Mixed", "a weighted, scheduled sum of objectives"),
        "estimator": (
            "adaptbench.attacks.estimator:EstimatorEnergy",
            "raise the cost that a fitted black-box estimator predicts",
        ),
    },
)

CONSTRAINTS = Registry(
    "constraint",
    "constraints",
    {
        "linf": ("adaptbench.attacks.constraints:Linf", "no pixel changes by more than eps"),
        "l2": ("adaptbench.attacks.constraints:L2", "the Euclidean length of the change is at most eps"),
        "l1": ("adaptbench.attacks.l1:L1", "the sum of all changes is at most eps; steps go into few values"),
        "patch": ("adaptbench.attacks.patch:Patch", "anything inside one square, nothing outside it"),
        "none": ("adaptbench.attacks.constraints:Unbounded", "any picture"),
        "series-linf": (
            "adaptbench.attacks.series:SeriesBall",
            "of series: no value changes by more, in their own unit",
        ),
        "words": (
            "adaptbench.attacks.word_edits:WordEdits",
            "of texts: a share of the words exchanged or misspelt",
        ),
    },
)

SEARCHES = Registry(
    "search",
    "searches",
    {
        "sign-descent": (
            "adaptbench.attacks.searches:SignDescent",
            "steps of fixed length along the steepest direction, projected",
        ),
        "adam-tanh": (
            "adaptbench.attacks.searches:AdamTanh",
            "Adam on a tanh change of variables that cannot leave box or ball",
        ),
        "momentum": (
            "adaptbench.attacks.momentum:MomentumDescent",
            "steepest descent with momentum whose step halves when it stops paying",
        ),
        "generator": (
            "adaptbench.attacks.generator:Generator",
            "a small net that is trained once, and makes a change in one pass",
        ),
        "random": ("adaptbench.attacks.searches:RandomDraw", "one draw on the ball, nothing optimised"),
        "one-colour": ("adaptbench.attacks.corruptions:OneColour", "a picture of one colour in each one's place"),
        "blur": ("adaptbench.attacks.corruptions:Blur", "Gaussian blur at a severity of 1 to 5"),
        "contrast": ("adaptbench.attacks.corruptions:Contrast", "less contrast, at a severity of 1 to 5"),
        "brightness": ("adaptbench.attacks.corruptions:Brightness", "more brightness, at a severity of 1 to 5"),
        "jpeg": ("adaptbench.attacks.corruptions:Jpeg", "JPEG at a quality that falls with a severity of 1 to 5"),
        "best-of": ("adaptbench.attacks.best_of:BestOf", "many draws on the ball, the dearest of them by queries"),
        "blocks": ("adaptbench.attacks.blocks:Blocks", "draws of coarse signs at many scales, the dearest by queries"),
        "square": ("adaptbench.attacks.square:Square", "squares of one sign, kept where the cost does not fall"),
        "contours": (
            "adaptbench.attacks.contours:Contours",
            "coarse signs that follow the picture, then a walk from the dearest where the cost does not fall",
        ),
        "assorted": (
            "adaptbench.attacks.assorted:Assorted",
            "patterns of several kinds by their shares, then a walk from the dearest where the cost does not fall",
        ),
        "taught": (
            "adaptbench.attacks.taught:Taught",
            "as assorted, after those patterns that made most crafting pictures dear",
        ),
        "answer-square": (
            "adaptbench.attacks.answer_square:AnswerSquare",
            "squares that make the cost rise or the returned answer less sure",
        ),
        "evolution": (
            "adaptbench.attacks.evolution:Evolution",
            "patterns that are crossed, changed, and handed from picture to picture",
        ),
        "ordinal": (
            "adaptbench.attacks.ordinal:Ordinal",
            "patterns that an ensemble of ordinal models expects most of, refitted on the answers",
        ),
        "word-beam": ("adaptbench.attacks.word_search:WordBeam", "of texts: one more edit a step, the best few kept"),
        "random-words": ("adaptbench.attacks.word_control:RandomWords", "of texts: as many edits, drawn at random"),
        "series-descent": ("adaptbench.attacks.series:SeriesDescent", "of series: steps of the sign, projected"),
        "series-draw": ("adaptbench.attacks.series:SeriesDraw", "of series: each value up or down by the radius"),
        "spsa": ("adaptbench.attacks.spsa:Spsa", "a slope of the cost, estimated from pairs of queries"),
    },
)

PATTERNS = Registry(
    "pattern",
    "patterns",
    {
        "contours": (
            "adaptbench.attacks.pattern_kinds:ContourSigns",
            "coarse signs that follow the bright and dark parts of the picture",
        ),
        "coarse": (
            "adaptbench.attacks.pattern_kinds:CoarseSigns",
            "squares and stripes of random signs at many scales",
        ),
        "waves": ("adaptbench.attacks.waves:Waves", "signs of single waves of any frequency and direction"),
        "blurred-noise": ("adaptbench.attacks.blurred:BlurredNoise", "signs of noise after a Gaussian blur"),
    },
)
"""Kinds of patterns that queries ask about, in the searches `assorted` and `taught`."""

ATTACKS = Registry("attack", "attacks", {})
"""Attack classes of plug-ins: ``name = "module:Class"``, called with the suite's settings as keywords."""
