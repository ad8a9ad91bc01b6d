import pytest
import torch
from attack_toys import faint_pictures, trained_multi_exit


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def saver():
    """A trained multi-exit net that saves most of its compute on clean pictures."""
    torch.set_num_threads(1)
    return trained_multi_exit()


@pytest.fixture(scope="session")
def pictures():
    return faint_pictures(60, 2)
