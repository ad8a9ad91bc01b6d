"""Integers only: order, readers, extremes and ways, against brute force."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import topologies
from torch import nn

from adaptbench.adaptive import Cascade, DecisionGraph, GatedNetwork, Gates, ImageDomain, MultiExit, NetworkDag, Node
from adaptbench.adaptive.topology import cheapest_ways, check_topology, extreme_costs, simple_paths
from adaptbench.errors import GraphError


def every_way(successors):
    ways, stack = [], [(0,)]
    while stack:
        way = stack.pop()
        ways.append(way)
        stack.extend((*way, w) for w in successors[way[-1]])
    return ways


@settings(max_examples=80, deadline=None, derandomize=True)
@given(topologies(max_nodes=7), st.lists(st.integers(0, 50), min_size=14, max_size=14))
def test_extremes_and_ways_against_brute_force(topology, costs):
    successors, reads = topology
    size = len(reads)
    visit, leave = costs[:size], costs[7 : 7 + size]
    ways = every_way(successors)
    totals = [sum(visit[v] for v in way) + leave[way[-1]] for way in ways]
    assert extreme_costs(successors, visit, leave) == (min(totals), max(totals))
    listed = simple_paths(successors, visit, leave, limit=1000)
    assert sorted(listed) == sorted(ways)
    cost = dict(zip(ways, totals, strict=True))
    assert cost[listed[0]] == min(totals)
    assert cost[listed[min(1, len(listed) - 1)]] == max(totals) or len(set(totals)) == 1
    for v, way in enumerate(cheapest_ways(successors, visit)):
        assert sum(visit[u] for u in way) == min(sum(visit[u] for u in w) for w in ways if w[-1] == v)
    short = simple_paths(successors, visit, leave, limit=2)
    assert set(itertools.chain(*short)) == set(range(size)), "a short list must still cover every node"


@settings(max_examples=80, deadline=None, derandomize=True)
@given(topologies(max_nodes=7))
def test_indices_are_those_of_the_names(topology):
    successors, reads = topology
    rows = [
        (f"n{v}", "input" if reads[v] < 0 else f"n{reads[v]}", tuple(f"n{w}" for w in ways))
        for v, ways in enumerate(successors)
    ]
    checked = check_topology(rows)
    assert checked.successors == tuple(successors)
    assert checked.reads == tuple(reads)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "without nodes"),
        ([("a", "input", ("a2",)), ("a", "input", ())], "used twice"),
        ([("input", "input", ())], "reserved"),
        ([("a", "input", ("b",))], "names 'b', which is no node"),
        ([("a", "b", ())], "names 'b', which is no node"),
        ([("a", "input", ("b",)), ("b", "input", ("a",))], "backwards"),
        ([("a", "input", ("a",))], "backwards"),
        ([("a", "input", ("b", "b")), ("b", "input", ())], "twice to one node"),
        ([("a", "input", ()), ("b", "input", ())], "no node hands over to 'b'"),
        ([("a", "input", ("b", "c")), ("b", "input", ("c",)), ("c", "b", ())], "can be reached without running it"),
        ([("a", "input", ("b",)), ("b", "b", ())], "can be reached without running it"),
    ],
)
def test_what_is_no_graph_is_explained(rows, message):
    with pytest.raises(GraphError, match=message):
        check_topology(rows)


def flat(classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(4, classes))


SHAPE = (1, 2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiExit([nn.Flatten()], [], input_shape=SHAPE), "1 stages were given with 0 heads"),
        (lambda: MultiExit([nn.Flatten()], [nn.Linear(4, 3)], input_shape=SHAPE, names=["a", "b"]), "2 names"),
        (lambda: MultiExit([nn.Identity()], [nn.Identity()], input_shape=SHAPE), r"not logits of shape \(N, C\)"),
        (lambda: NetworkDag({}, input_shape=SHAPE), "without nets"),
        (lambda: NetworkDag({"a": flat()}, input_shape=SHAPE, edges=[("a", "z")]), "an edge names 'z'"),
        (lambda: Cascade({"a": flat(), "b": flat()}, input_shape=SHAPE, reference="c"), "reference names 'c'"),
        (
            lambda: DecisionGraph(
                [
                    Node("a", nn.Flatten(), nn.Linear(4, 3), to=("b",)),
                    Node("b", nn.Identity(), nn.Linear(4, 3), reads="a"),
                ],
                domain=ImageDomain(SHAPE),
                n_classes=3,
                reference=["b"],
            ),
            "does not run from the input on its own",
        ),
        (
            lambda: GatedNetwork(
                stem=nn.Identity(), blocks=[], head=flat(), gates=Gates(), domain=ImageDomain(SHAPE), n_classes=3
            ),
            "needs blocks",
        ),
    ],
)
def test_wrong_pieces_are_explained(make, message):
    with pytest.raises(GraphError, match=message):
        make()


def test_finding_the_classes_leaves_the_mode_alone():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3))
    net[1].eval()
    before = net[1].running_mean.clone()
    made = Cascade({"a": net}, input_shape=SHAPE)
    assert [m.training for m in net] == [True, False, True]
    assert torch.equal(net[1].running_mean, before)
    assert made.n_classes == 3
