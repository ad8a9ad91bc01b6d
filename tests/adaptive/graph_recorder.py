"""A recorder of graphs that needs no card."""

from torch.utils._pytree import tree_leaves


class Record:
    """As a card does it: what was recorded runs on the same tensors, and writes its outputs into the same ones."""

    def __init__(self):
        self.recorded, self.replayed = [], 0

    def __call__(self, run):
        out = run()
        self.recorded.append(len(tree_leaves(out)[0]))

        def replay():
            self.replayed += 1
            for kept, new in zip(tree_leaves(out), tree_leaves(run()), strict=True):
                kept.copy_(new)

        return replay, out
