"""What an adaptive network is: graphs, gates, the hard and the differentiable pass, and the count of what ran."""

from adaptbench.adaptive.constructors import Cascade, MultiExit, NetworkDag, Static
from adaptbench.adaptive.counting import MacCounter
from adaptbench.adaptive.domain import ImageDomain, Normalise
from adaptbench.adaptive.gated import GatedNetwork
from adaptbench.adaptive.gates import Block, FeedForwardGates, Gates
from adaptbench.adaptive.graph import DecisionGraph, Node
from adaptbench.adaptive.log import CalibrationLog, EvaluationLog
from adaptbench.adaptive.metered import CostMeter, MeteredInference
from adaptbench.adaptive.model import AdaptiveModel
from adaptbench.adaptive.online import OnlinePolicy, OnlineRecord, over_orders, run_online, run_online_on_model
from adaptbench.adaptive.outcome import Inference, Relaxation, Signals
from adaptbench.adaptive.pixels import PixelExits
from adaptbench.adaptive.policy import ChainPolicy, NeverStop, Policy
from adaptbench.adaptive.series import SeriesDomain
from adaptbench.adaptive.splits import Split
from adaptbench.adaptive.structure import Structure
from adaptbench.adaptive.token_network import TokenNetwork
from adaptbench.adaptive.token_rules import CumulativeHalting, InverseTransformSampling, TokenRule
from adaptbench.adaptive.tokens import TokenDomain

__all__ = [
    "AdaptiveModel",
    "Block",
    "CalibrationLog",
    "Cascade",
    "ChainPolicy",
    "CostMeter",
    "CumulativeHalting",
    "DecisionGraph",
    "EvaluationLog",
    "FeedForwardGates",
    "GatedNetwork",
    "Gates",
    "ImageDomain",
    "Inference",
    "InverseTransformSampling",
    "MacCounter",
    "MeteredInference",
    "MultiExit",
    "NetworkDag",
    "NeverStop",
    "Node",
    "Normalise",
    "OnlinePolicy",
    "OnlineRecord",
    "PixelExits",
    "Policy",
    "Relaxation",
    "SeriesDomain",
    "Signals",
    "Split",
    "Static",
    "Structure",
    "TokenDomain",
    "TokenNetwork",
    "TokenRule",
    "over_orders",
    "run_online",
    "run_online_on_model",
]
