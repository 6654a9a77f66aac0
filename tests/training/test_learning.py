"""The loop that trains every part: optimizers, schedule, checkpoints, decay."""

import json

import pytest
import torch
from torch import nn

from training.dreamlet.learning.averages import MovingAverage
from training.dreamlet.learning.learner import Learner
from training.dreamlet.learning.loop import run
from training.dreamlet.learning.muon import Muon, orthogonalised
from training.dreamlet.learning.progress import Progress, duration
from training.dreamlet.learning.run_folder import RunFolder, save_atomically
from training.dreamlet.learning.schedule import Training


def training(**changed):
    values = {
        "batch_size": 4, "muon_rate": 0.02, "adamw_rate": 1e-2, "average": 0.9, "steps": 12, "warm_up_steps": 2,
        "decay_steps": 4, **changed,
    }  # fmt: skip
    return Training(**values)


class Line:
    """A stage small enough for many steps: a network learns to double its input."""

    name = "line"

    def __init__(self, **changed):
        torch.manual_seed(0)
        self.training = training(**changed)
        self.learner = Learner(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)), self.training)
        self.steps = []

    def loss(self, step, chance):
        self.steps.append(step)
        inputs = torch.randn(4, 16, generator=chance.generator) * chance.random.random()
        return (self.learner.network(inputs) - 2 * inputs).square().mean()

    def export(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        with self.learner.average.in_place():
            torch.save(self.learner.network.state_dict(), folder / "weights.pt")
        return "fine"


def stopping_after(stage, steps):
    return lambda: len(stage.steps) == steps


def weights(folder):
    return torch.load(folder.result / "weights.pt", weights_only=True)


@pytest.mark.parametrize("stopped_at", [3, 8, 10])
def test_an_interrupted_training_gives_the_weights_of_an_uninterrupted_one(tmp_path, stopped_at):
    """
    Bit by bit, whether it stops before the decay, as it begins, or within it.
    """
    whole, parted = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parted")
    assert run(Line(), whole)
    first = Line()
    assert not run(first, parted, is_interrupted=stopping_after(first, stopped_at))
    second = Line()
    assert run(second, parted)
    assert first.steps + second.steps == list(range(12))
    for name, values in weights(whole).items():
        assert torch.equal(weights(parted)[name], values), name


def test_a_decay_may_be_asked_for_at_any_time_and_the_state_before_it_stays(tmp_path):
    folder = RunFolder(tmp_path)
    stage = Line(steps=1000)
    run(stage, folder, is_interrupted=stopping_after(stage, 5))
    folder.ask("decay")
    decayed = Line(steps=1000)
    assert run(decayed, folder)
    assert decayed.steps == [5, 6, 7, 8]
    before = torch.load(folder.checkpoint, weights_only=True)
    assert (before["step"], before["decay_from"]) == (5, None)
    assert not folder.branch.exists()
    assert not folder.is_asked("decay")
    assert json.loads((tmp_path / "finished.json").read_text()) == {"step": 9, "decay_from": 5}
    further = Line(steps=1000)
    run(further, folder, is_interrupted=stopping_after(further, 2))
    assert further.steps == [5, 6]


def test_an_interrupted_decay_goes_on_as_a_decay(tmp_path):
    folder = RunFolder(tmp_path)
    folder.ask("decay")
    stage = Line(steps=1000)
    run(stage, folder, is_interrupted=stopping_after(stage, 2))
    assert folder.branch.exists()
    rest = Line(steps=1000)
    assert run(rest, folder)
    assert rest.steps == [2, 3]


def test_a_training_stops_when_asked_by_a_file_and_takes_the_file_away(tmp_path):
    folder = RunFolder(tmp_path)
    folder.ask("stop")
    stage = Line()
    assert not run(stage, folder)
    assert stage.steps == [0]
    assert not folder.is_asked("stop")


def test_a_finished_training_is_left_alone_until_more_steps_are_asked_for(tmp_path):
    folder = RunFolder(tmp_path)
    run(Line(), folder)
    again = Line()
    assert run(again, folder)
    assert again.steps == []
    longer = Line(steps=14)
    assert run(longer, folder)
    assert longer.steps == list(range(8, 14))


def test_a_crash_while_a_checkpoint_is_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_atomically({"step": 1}, path)

    class Unwritable:
        def __reduce__(self):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_atomically({"step": 2, "learner": Unwritable()}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_the_learning_rate_rises_stays_and_falls_to_zero():
    plan = training()
    assert [plan.factor(step, None) for step in (0, 1, 2, 500)] == [0.5, 1.0, 1.0, 1.0]
    assert [plan.factor(step, 8) for step in (8, 10, 12, 13)] == [1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (40, 16), (16, 4, 3, 3)])
def test_muon_takes_the_step_of_the_plain_formula(shape):
    """
    Newton and Schulz approach U V^T of the singular value decomposition; Jordan's coefficients stop at 0.7 to 1.2.
    """
    torch.manual_seed(1)
    parameter = nn.Parameter(torch.zeros(shape))
    optimizer = Muon([parameter], lr=0.1, momentum=0.95)
    momentum, expected = torch.zeros(shape[0], parameter[0].numel()), torch.zeros(shape[0], parameter[0].numel())
    for _ in range(3):
        parameter.grad = torch.randn(shape)
        optimizer.step()
        gradient = parameter.grad.flatten(1)
        momentum = 0.95 * momentum + 0.05 * gradient
        x = 0.05 * gradient + 0.95 * momentum
        x = x / x.norm()
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        expected -= 0.1 * max(1, shape[0] / expected.shape[1]) ** 0.5 * x
    torch.testing.assert_close(parameter.detach().flatten(1), expected, atol=1e-4, rtol=1e-3)


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(2)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(3, 24, 48)))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_faint_directions_are_made_as_long_as_the_formula_makes_them():
    """Singular values down to a ten-millionth: the square products hold them with half the digits."""
    torch.manual_seed(3)
    left, _, right = torch.linalg.svd(torch.randn(32, 96, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, -7, 32, dtype=torch.float64)
    found = orthogonalised(((left * values) @ right)[None].float())[0]
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    torch.testing.assert_close(found, ((left * values) @ right).float(), atol=1e-3, rtol=0)


def test_muon_leaves_vectors_narrow_matrices_and_excepted_layers_to_adamw():
    network = nn.ModuleDict({"inner": nn.Linear(16, 16), "inlet": nn.Linear(16, 16), "narrow": nn.Linear(16, 4)})
    learner = Learner(network, training(), for_adamw=("inlet",))
    before = {name: values.detach().clone() for name, values in network.named_parameters()}
    inputs = torch.ones(2, 16)
    learner.step(sum(layer(inputs).sum() for layer in network.values()), 1.0)
    changes = {name: (values - before[name]).abs().max().item() for name, values in network.named_parameters()}
    # AdamW's first step moves every number by its learning rate.
    for name in ("inlet.weight", "inner.bias", "narrow.weight"):
        assert changes[name] == pytest.approx(1e-2, rel=1e-3)
    assert changes["inner.weight"] != pytest.approx(1e-2, rel=1e-2)


def test_what_asks_for_no_gradient_stays_as_it_is():
    network = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    network[0].requires_grad_(requires_grad=False)
    before = network[0].weight.clone()
    learner = Learner(network, training())
    learner.step(network(torch.ones(2, 16)).square().sum(), 1.0)
    assert torch.equal(network[0].weight, before)
    with learner.average.in_place():
        assert torch.equal(network[0].weight, before)


def test_the_average_stands_in_and_steps_back():
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.0)
    average = MovingAverage(module, decay=0.5)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average.update()
    with average.in_place():
        inside = module.weight.item()
    assert 0 < inside < 1
    assert module.weight.item() == 1.0


def test_progress_says_step_loss_speed_and_what_is_left():
    times = iter([0.0, 30.0, 60.0, 60.0])
    progress = Progress("unet", batch_size=64, every_s=60.0, now=lambda: next(times))
    progress.count(0.3)
    assert progress.report_if_due(1, 1001) is None
    progress.count(0.1)
    line = progress.report_if_due(2, 1002)
    assert line == "unet: step 2 of 1,002, loss 0.2000, 2.1 samples/s, 8 h 20 min left"


def test_durations_read_well():
    assert [duration(seconds) for seconds in (12, 240, 12_060)] == ["12 s", "4 min", "3 h 21 min"]
