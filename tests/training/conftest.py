"""What several tests of the training code start from."""

import pytest
import torch

from training.dreamlet.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(captions=3000)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """So small networks are fastest with one, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
