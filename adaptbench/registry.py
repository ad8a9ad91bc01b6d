"""Names → things. Targets are ``module:attribute`` strings, loaded on first use, so that listing names stays fast.

A plug-in adds to a registry through an entry point of its group (``adaptbench.models``, ``adaptbench.policies``,
``adaptbench.defences``, ``adaptbench.data``, ``adaptbench.meters``, ``adaptbench.searches`` …); nothing in this package needs an edit.
"""

from __future__ import annotations

from adaptbench.naming import Entry as Entry
from adaptbench.naming import Registry as Registry
from adaptbench.naming import did_you_mean as did_you_mean

MODELS = Registry(
    "model",
    "models",
    {
        "softmax-threshold": (
            "adaptbench.zoo.systems:softmax_threshold",
            "multi-exit net, confidence thresholds from ε (Berestizshevsky & Even 2019)",
        ),
        "learned-cascade": (
            "adaptbench.zoo.systems:learned_cascade",
            "nets of growing size, learned selection modules (Guan et al. 2018)",
        ),
        "dag-selection": (
            "adaptbench.zoo.systems:dag_selection",
            "network selection over a DAG, cost-sensitive policies (Bolukbasi et al. 2017)",
        ),
        "skipnet": (
            "adaptbench.zoo.systems:skipnet",
            "residual net with a feed-forward gate a block (after Wang et al. 2018)",
        ),
        "skipnet-rnn": (
            "adaptbench.zoo.systems:skipnet_rnn",
            "CIFAR ResNet, one recurrent gate (Wang et al. 2018)",
        ),
        "act": (
            "adaptbench.zoo.systems:act",
            "residual net whose stages halt by score (after Figurnov et al. 2017)",
        ),
        "a-vit": (
            "adaptbench.zoo.systems:a_vit",
            "vision transformer whose tokens leave between blocks (after Yin et al. 2022)",
        ),
        "ats": (
            "adaptbench.zoo.systems:ats",
            "vision transformer whose tokens are sampled by attention, untrained (after Fayyaz et al. 2022)",
        ),
        "sdn": ("adaptbench.zoo.systems:sdn", "CIFAR ResNet, six internal classifiers (Kaya et al. 2019)"),
        "exits-and-nets": (
            "adaptbench.zoo.systems:exits_and_nets",
            "CIFAR nets and exits in one graph (Bolukbasi et al. 2017)",
        ),
        "eenet": (
            "adaptbench.zoo.systems:eenet",
            "CIFAR ResNet trained with convolutional exits (Ilhan et al. 2024)",
        ),
        "msdnet": ("adaptbench.zoo.systems:msdnet", "CIFAR MSDNet, five classifiers (Huang et al. 2018)"),
        "densenet121": ("adaptbench.zoo.systems:densenet121", "DenseNet-121 with exits, CIFAR stem"),
        "blockdrop": (
            "adaptbench.zoo.systems:blockdrop",
            "CIFAR ResNet, blocks planned at a glance (Wu et al. 2018)",
        ),
        "class-means": ("adaptbench.zoo.systems:class_means", "CIFAR ResNet, training-free exits (E²CM 2021)"),
        "text-exits": (
            "adaptbench.zoo.systems:text_exits",
            "text encoder, an exit after each layer (after DeeBERT 2020)",
        ),
        "text-exits-tuned": (
            "adaptbench.zoo.systems:text_exits_tuned",
            "the same, the encoder's biases and layer norms tuned with its exits (after BitFit 2022)",
        ),
        "dense-exits": (
            "adaptbench.zoo.systems:dense_exits",
            "segmentation net, an exit for every pixel after each stage",
        ),
        "closed-loop-inference": (
            "adaptbench.zoo.systems:closed_loop_inference",
            "CIFAR ResNet, hard inputs go round again; backward passes count (Niu et al. 2022)",
        ),
        **{
            f"resnet{depth}": (f"adaptbench.zoo.systems:resnet{depth}", f"CIFAR ResNet-{depth}, static")
            for depth in (8, 14, 20, 32, 56, 110)
        },
        "resnet-ladder": (
            "adaptbench.zoo.systems:resnet_ladder",
            "the nets of learned-cascade and dag-selection as a chain; name a policy",
        ),
        "multi-exit": ("adaptbench.zoo.systems:multi_exit", "the net of softmax-threshold; name a policy"),
        "adversarial-heads": (
            "adaptbench.zoo.systems:adversarial_heads",
            "the net of softmax-threshold, its heads trained against slow-down (a defence)",
        ),
        "boosted-exits": (
            "adaptbench.zoo.systems:boosted_exits",
            "exits that add to the answer before (BoostedNet, Yu et al. 2023)",
        ),
        "static": ("adaptbench.zoo.systems:static", "the largest net of the ladder, always run whole"),
        "oracle": (
            "adaptbench.zoo.systems:oracle",
            "the DAG's nets, cheapest right answer by looking at the label: a bound, not a policy",
        ),
        "myopic": (
            "adaptbench.zoo.systems:myopic",
            "the DAG's nets, each node compares stopping with the next net only",
        ),
        "uniform": ("adaptbench.zoo.systems:uniform", "the DAG's nets as a chain, one confidence threshold for all"),
    },
)

POLICIES = Registry(
    "policy",
    "policies",
    {
        "softmax-threshold": (
            "adaptbench.policies.thresholds.softmax_threshold:SoftmaxThreshold",
            "residual-accuracy thresholds, ε at run time",
        ),
        "softmax-threshold-published": (
            "adaptbench.policies.thresholds.softmax_threshold:PublishedThreshold",
            "the same rule as released: any support counts",
        ),
        "joint-threshold": (
            "adaptbench.policies.thresholds.joint_threshold:JointThreshold",
            "thresholds chosen together for the cascade's own loss",
        ),
        "risk-controlled": (
            "adaptbench.policies.thresholds.risk_controlled:RiskControlled",
            "joint thresholds; ε is a promise with a finite-sample bound",
        ),
        "learned-cascade": (
            "adaptbench.policies.gates.learned_cascade:LearnedCascade",
            "selection modules trained by REINFORCE or the exact gradient",
        ),
        "dag-selection": (
            "adaptbench.policies.gates.dag_selection:DagSelection",
            "cost-sensitive actions, fitted from sinks to source",
        ),
        "myopic": ("adaptbench.policies.gates.dag_selection:Myopic", "cost-sensitive, looks one node ahead"),
        "uniform": (
            "adaptbench.policies.thresholds.uniform:UniformThreshold",
            "one confidence threshold for every node",
        ),
        "entropy": ("adaptbench.policies.thresholds.entropy:EntropyThreshold", "one entropy threshold for every exit"),
        "msdnet-budget": (
            "adaptbench.policies.budgets.budgeted:MsdnetBudget",
            "top-probability thresholds from geometric quotas for a budget",
        ),
        "branchynet-budget": (
            "adaptbench.policies.budgets.budgeted:BranchyNetBudget",
            "entropy thresholds from geometric quotas for a budget",
        ),
        "pabee-budget": (
            "adaptbench.policies.budgets.budgeted:PabeeBudget",
            "vote-ratio thresholds from geometric quotas for a budget",
        ),
        "eenet": ("adaptbench.policies.budgets.eenet:EENet", "learned scores and exit shares for a soft budget"),
        "eenet-published": ("adaptbench.policies.budgets.eenet:PublishedEENet", "the same as released: hours to fit"),
        "exact-budget": (
            "adaptbench.policies.budgets.exact_budget:ExactBudget",
            "learned worth of going on, priced to meet a mean budget",
        ),
        "committees": (
            "adaptbench.policies.cascades.committees:Committees",
            "the average of all nets run answers; its confidence decides (Wang et al. 2022)",
        ),
        "lebovitz-pair": (
            "adaptbench.policies.cascades.pairs:LebovitzPair",
            "best pair of nodes, one confidence threshold (Lebovitz et al. 2023)",
        ),
        "streeter": (
            "adaptbench.policies.cascades.streeter:Streeter",
            "greedy cascade of abstaining nodes within an accuracy slack (Streeter 2018)",
        ),
        "ebjr": (
            "adaptbench.policies.thresholds.ebjr:EnergyRouting",
            "free energy of the logits against a threshold (EBJR 2021)",
        ),
        "pabee": (
            "adaptbench.policies.thresholds.pabee:Patience",
            "stops after enough equal answers in a row (Zhou et al. 2020)",
        ),
        "ztw": (
            "adaptbench.policies.thresholds.ztw:GeometricEnsemble",
            "weighted geometric mean of the exits so far (Zero Time Waste 2021)",
        ),
        "label-free": (
            "adaptbench.policies.gates.label_free:LabelFree",
            "confidence heads fitted to the last exit's answers (after PTEENet 2025)",
        ),
        "distilled-oracle": (
            "adaptbench.policies.gates.distilled_oracle:DistilledOracle",
            "gates imitate a soft oracle by KL (after MAML-stop 2020)",
        ),
        "fitted-q": (
            "adaptbench.policies.gates.fitted_q:FittedQ",
            "exit or go on by backward fitted Q on logged logits; any graph",
        ),
        "jei-dnn": (
            "adaptbench.policies.gates.jei_dnn:JeiGates",
            "linear gates on four uncertainties, stop from the best exit on (JEI-DNN 2024)",
        ),
        "fixed-exit": ("adaptbench.policies.references.fixed_exit:FixedExit", "always the same exit of a chain"),
        "mixture": (
            "adaptbench.policies.references.mixture:Mixture",
            "two operating points, one drawn for each sample",
        ),
        "oracle": ("adaptbench.policies.references.oracle:Oracle", "cheapest right node; needs labels"),
        "random": (
            "adaptbench.policies.references.random_mix:RandomMix",
            "stops at each node with a given probability, seeded per sample",
        ),
    },
)

ONLINE = Registry(
    "online policy",
    "online",
    {
        "uee-ucb": (
            "adaptbench.policies.online:UeeUcb",
            "one exit a domain, by a bandit on disagreement, no labels (2022)",
        ),
        "closed-loop": ("adaptbench.policies.online:ClosedLoop", "PI control of a policy's knob towards a cost budget"),
        "compute-budget": (
            "adaptbench.policies.online:ComputeBudget",
            "a token bucket of work that all inputs share; when it runs low, exits are forced",
        ),
        "open-loop": ("adaptbench.policies.online:OpenLoop", "a plain policy, nothing learned"),
    },
)

DEFENCES = Registry(
    "defence",
    "defences",
    {
        "quantise": (
            "adaptbench.defences.quantise:Quantise",
            "fewer grey levels; attacked straight through the rounding (BPDA)",
        ),
        "harden": (
            "adaptbench.defences.harden:Harden",
            "stopping made easier at every node, within an accuracy allowance on calibration",
        ),
        "smooth": ("adaptbench.defences.smooth:Smooth", "Gaussian, mean or median filter; its MACs count"),
    },
)

DATA = Registry(
    "data set",
    "data",
    {
        "digits": ("adaptbench.data.digits:Digits", "1 797 grey 8×8 digits, embedded (scikit-learn)"),
        "fashion-mnist": ("adaptbench.data.fashion_mnist:FashionMnist", "70 000 grey 28×28 garments (IDX files)"),
        "cifar10": ("adaptbench.data.cifar:Cifar10", "60 000 colour 32×32 pictures, 10 classes"),
        "cifar100": ("adaptbench.data.cifar:Cifar100", "60 000 colour 32×32 pictures, 100 classes"),
        "sst2": ("adaptbench.data.text:Sst2", "film reviews in 2 classes, GLUE's files"),
        "ag-news": ("adaptbench.data.text:AgNews", "news in 4 classes"),
        "sst2-minilm": ("adaptbench.data.text:Sst2Minilm", "SST-2 in MiniLM's word pieces"),
        "ag-news-minilm": ("adaptbench.data.text:AgNewsMinilm", "AG News in MiniLM's word pieces"),
        "pasted-digits": (
            "adaptbench.data.pasted:PastedDigits",
            "5 200 made pictures 32×32, digits pasted on textures, a label for every pixel",
        ),
        "cityscapes": (
            "adaptbench.data.cityscapes:Cityscapes",
            "cityscapes:PATH?scale=4, street scenes in Cityscapes' folders, a label for every pixel",
        ),
        "imagefolder": ("adaptbench.data.image_folder:ImageFolder", "imagefolder:PATH, a folder a class"),
        "uci-har": ("adaptbench.data.har:UciHar", "uci-har:PATH, series in the folders of UCI HAR"),
        "npz": ("adaptbench.data.table_files:Npz", "npz:PATH, arrays x and y, or x_train, y_train, x_test, y_test"),
        "csv": ("adaptbench.data.table_files:Csv", "csv:PATH?shape=1x28x28, a row a picture, a column label"),
        "parquet": ("adaptbench.data.table_files:Parquet", "parquet:PATH?shape=3x32x32, a row a picture"),
    },
)

METERS = Registry(
    "meter",
    "meters",
    {
        "clock": ("adaptbench.meters.clock:ClockMeter", "wall time, device synchronised"),
        "modelled": (
            "adaptbench.meters.modelled:ModelledMeter",
            "joules from MACs and bytes by cited coefficients: a model, not a measurement",
        ),
        "nvml": ("adaptbench.meters.nvml:NvmlMeter", "NVIDIA GPU energy counter, integrated power where there is none"),
        "codecarbon": (
            "adaptbench.meters.codecarbon:CodeCarbonMeter",
            "whole-run CPU, GPU and RAM energy and CO2e, offline",
        ),
    },
)

ENGINES = Registry(
    "engine",
    "engines",
    {
        "local": ("adaptbench.experiment.engines:Local", "this process, one piece of work after another"),
        "ray": ("adaptbench.experiment.on_ray:Ray", "workers of a Ray cluster, or of this machine's cores"),
    },
)
