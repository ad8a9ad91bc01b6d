"""Words about a whole run: which cell of how many, and how long the rest takes. No clock is read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))

from small_study import STUDY

from adaptbench.bench.ahead import SUMMARY, stages_of
from adaptbench.bench.plan import make_plan
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import load_suite
from adaptbench.experiment.ahead import Ahead, Stage, rounded
from adaptbench.experiment.options import Options
from adaptbench.study import load_study, run_study
from adaptbench.study.ahead import stages_of as study_stages
from adaptbench.study.plan import make_plan as make_study_plan

SMALL = str(Path(__file__).parents[1] / "bench" / "small.yaml")


class Heard:
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def begin(self, stage, total):
        self.said.append("")

    def advance(self, done, words=""):
        self.said[-1] = words
        self.all = [*getattr(self, "all", []), words]

    def end(self):
        pass


class World:
    """Stages of two guessed seconds, and a clock that tests move."""

    def __init__(self, *stages):
        self.now = 0.0
        self.heard = Heard()
        self.ahead = Ahead(self.heard, stages, lambda: self.now)

    def do(self, name, seconds, *, steps=4, of=None):
        self.ahead.enter(name)
        self.ahead.begin(name, steps)
        for step in range(1, (of or steps) + 1):
            self.now += seconds / steps
            self.ahead.advance(step)
        self.ahead.end()
        self.ahead.leave()


CRAFTS = [Stage(f"{attack} {net}", 1, 2.0, (attack, "craft")) for net in "ab" for attack in ("ilfo", "ereba")]


def test_what_was_done_corrects_what_is_alike():
    world = World(*CRAFTS, Stage("batch 1", 8, 10.0, ("session",)))
    world.do("ilfo a", 4.0)
    # twice as long as guessed: so are the other crafts, of which nothing is known; the session's guess stands
    assert world.ahead.left_s() == pytest.approx(4.0 + 4.0 + 4.0 + 10.0, abs=0.1)
    world.do("ereba a", 20.0)
    assert world.ahead.left_s() == pytest.approx(4.0 + 20.0 + 10.0, abs=0.1)
    assert world.ahead.words() == "cell 2 of 12, about 0:40 left"


def test_nothing_is_said_of_the_time_before_anything_is_known():
    world = World(*CRAFTS)
    world.ahead.enter("ilfo a")
    world.ahead.begin("crafting", 100)
    assert world.heard.said == ["cell 1 of 4"]
    world.now = 0.5
    world.ahead.advance(1)
    assert world.heard.said == ["cell 1 of 4"]
    world.now = 5.0
    world.ahead.advance(2)
    assert re.fullmatch(r"cell 1 of 4, about [\d:]+ left", world.heard.said[0])


def test_a_session_counts_its_blocks_and_what_was_kept_teaches_nothing():
    world = World(*CRAFTS, Stage("batch 1", 8, 8.0, ("session",)), Stage("batch 32", 8, 8.0, ("session",)))
    for stage in CRAFTS:
        world.ahead.enter(stage.name)  # kept: nothing begins
        world.ahead.leave()
    world.ahead.enter("batch 1")
    world.ahead.begin("measuring", 8)
    assert world.heard.said[-1] == "cell 5 of 20"
    world.now += 3.0
    world.ahead.advance(6)  # five were kept
    assert world.heard.said[-1].startswith("cell 11 of 20, about ")
    world.now += 3.0
    world.ahead.advance(7)
    world.now += 3.0
    world.ahead.advance(8)
    world.ahead.leave()
    world.ahead.enter("batch 32")
    assert world.ahead.left_s() == pytest.approx(8 * 3.0, rel=0.01)


def test_a_stage_that_broke_off_teaches_nothing():
    world = World(*CRAFTS)
    world.do("ilfo a", 2.0)
    world.do("ereba a", 100.0, of=1)
    assert world.ahead.left_s() <= 6.0


def test_it_is_never_negative_and_shrinks_to_the_end():
    world = World(*CRAFTS)
    left = []
    for stage in CRAFTS:
        world.ahead.enter(stage.name)
        world.ahead.begin(stage.name, 10)
        for step in range(11):
            world.now += 3.0  # far longer than guessed
            world.ahead.advance(step)
            left.append(world.ahead.left_s())
        world.ahead.leave()
    known = [seconds for seconds in left if seconds is not None]
    assert min(known) == 0.0
    assert known[-1] == 0.0
    assert len(known) > 40


def test_a_study_tells_of_the_whole_of_it(tmp_path):
    """Each stage that begins is one that was foreseen, cells only grow, and a finished one says nothing."""
    (tmp_path / "small.yaml").write_text(STUDY, encoding="utf-8")
    loaded = load_study(str(tmp_path / "small.yaml"))
    foreseen = study_stages(make_study_plan(loaded, Options()))
    heard = Heard()
    began = []
    heard.begin = lambda stage, total: (began.append(stage), heard.said.append(""))
    run_study(loaded, out=tmp_path / "run", progress=heard)
    assert [stage for stage in began if not any(stage.startswith(one.name) for one in foreseen)] == []
    assert {one.name for one in foreseen if not any(stage.startswith(one.name) for stage in began)} == set()
    of = sum(one.cells for one in foreseen)
    told = [re.match(rf"cell (\d+) of {of}", words) for words in heard.all]
    assert all(told), heard.all
    cells = [int(found[1]) for found in told]
    assert cells == sorted(cells)
    assert cells[-1] == of
    heard.all.clear()
    run_study(loaded, out=tmp_path / "run", progress=heard)
    assert heard.all == []


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "0:05"), (3.2, "0:05"), (23.0, "0:25"), (41.0, "0:50"), (59.9, "1:00"), (83.0, "1:20"), (597.0, "10 min"),
        (734.0, "12 min"), (7000.0, "117 min"), (9000.0, "2 h 30 min"), (40_000.0, "11 h"),
    ],
)  # fmt: skip
def test_no_more_precise_than_it_is_known(seconds, told):
    assert rounded(seconds) == told


def test_the_stages_of_a_plan_are_what_a_run_goes_through(tmp_path):
    loaded = load_suite(SMALL)
    stages = stages_of(make_plan(loaded, Options()))
    heard = Heard()
    run_suite(loaded, out=tmp_path / "run", progress=heard)
    cells = sum(stage.cells for stage in stages)
    assert [stage.name for stage in stages][-1] == SUMMARY
    assert all(stage.guess_s > 0 for stage in stages)
    counted = [re.match(r"cell (\d+) of (\d+)", words) for words in heard.all]
    assert {int(found[2]) for found in counted} == {cells}
    numbers = [int(found[1]) for found in counted]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, cells + 1))
