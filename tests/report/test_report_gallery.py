import base64
import io

import numpy as np
import pytest
from PIL import Image
from synthetic_run import MODELS, pictures

from adaptbench.report.gallery import BUDGET_BYTES, gallery
from adaptbench.report.view import View


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


def test_pictures_are_the_stored_bytes(small_run):
    run = small_run()
    ((group,),) = (gallery(View(run)).groups,)
    (strip,) = group.strips
    record = next(record for record in run.cases if record["condition"] == "ilfo")
    stored = run.crafted(record["crafted"])
    for place, example in enumerate(strip.examples):
        clean, attacked = stored["gallery_clean"][place, 0], stored["x_adv"][place, 0]
        assert (pixels(example.clean) == clean).all()
        assert (pixels(example.attacked) == attacked).all()
        factor = int(strip.factor.removeprefix("×"))
        change = 128 + factor * (attacked.astype(int) - clean.astype(int))
        assert (pixels(example.change) == change.clip(0, 255)).all()
    assert strip.factor == "×15"  # 127 // 8 levels


def test_ways_and_costs_are_those_of_the_samples(small_run):
    run = small_run()
    example = gallery(View(run)).groups[0].strips[0].examples[0]
    rows = {
        case: run.samples([f"digits/softmax-threshold/{case}"]).set_index("sample_id").loc[1000]
        for case in ("clean", "ilfo")
    }
    names = run.manifest["models"]["softmax-threshold"]["exit_names"]
    assert example.way == f"{names[rows['clean']['exit']]} → {names[rows['ilfo']['exit']]}"
    assert example.deeper == (rows["ilfo"]["macs"] > rows["clean"]["macs"])


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 224, 224), (1, 28, 28)])
def test_large_pictures_keep_to_the_budget(small_run, shape):
    run = small_run(models=MODELS[:3], shape=shape, sweep=0, references=False, batches=())
    made = gallery(View(run))
    weight = sum(
        len(uri)
        for group in made.groups
        for strip in group.strips
        for example in strip.examples
        for uri in (example.clean, example.attacked, example.change)
    )
    assert weight < BUDGET_BYTES
    assert made.shrunk == (shape[1] == 224)
    assert pixels(made.groups[0].strips[0].examples[0].clean).shape[0] <= 96


def test_no_change_is_said(small_run):
    run = small_run()
    plain = pictures((1, 8, 8))

    class Still(type(run)):
        def crafted(self, name):
            return {"x_adv": plain, "gallery_clean": plain, "sample_id": np.arange(16) + 1000}

    still = Still(run.path, run.manifest, run.cases)
    assert gallery(View(still)).groups[0].strips[0].factor == "no change"
