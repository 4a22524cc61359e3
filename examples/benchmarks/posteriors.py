r"""Compare posteriors of simulators with those of sbi, and with exact ones.

There are three simulators with exact posteriors. A conditional `ScoreModel`, and NPSE of sbi
(Geffner et al. 2023, arXiv:2209.14249) with its defaults, are trained on 10,000 simulations for the
same processor time. The figure is C2ST, the accuracy of a classifier that separates draws from
exact draws (.5 is best), by the function of sbi, averaged over observations. The last column is the
verdict of `scoresde.metrics.calibrate` on our model.

    pip install sbi
    python examples/benchmarks/posteriors.py            # an hour and a half on one core
    python examples/benchmarks/posteriors.py --short    # seconds, without sbi
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from simulators import TASKS, Task
from torch import Tensor

import scoresde
from scoresde.data import Data
from scoresde.metrics import calibrate, mean_interval
from scoresde.training import Averages, Optimiser, TrainConfig, Trainer

Draw = Callable[[Tensor, int, int], Tensor]


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    seconds: float = 120.0
    """Processor time of each training."""
    simulations: int = 10_000
    """Simulations of a training."""
    seeds: int = 5
    """Trainings of each method on each problem."""
    observations: int = 5
    """Data sets at which posteriors are compared, other ones for each seed."""
    draws: int = 1_000
    """Draws of each posterior."""
    calibrated: int = 6_000
    """Data sets of the calibration."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Which problems."""
    peer: bool = True
    """Whether sbi is run too."""
    short: bool = False
    """A run of seconds, too short to be good."""


def ours(theta: Tensor, y: Tensor, seconds: float, seed: int) -> Draw:
    """Train a conditional score model for some seconds; return a function that draws from it."""
    data = Data(theta, y=y).standardized()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = scoresde.nn.MLP(theta.shape[1], hidden=(128,) * 4, condition={"y": y.shape[1]})
    model = scoresde.ScoreModel(
        net, scoresde.VESDE(sigma_min=0.002, sigma_max=20.0), data.event_shape,
        moments=scoresde.Moments(*data.moments()), condition_moments=data.condition_moments(),
    )  # fmt: skip
    model.transform = data.transform

    def config(steps: int) -> TrainConfig:
        return TrainConfig(
            steps=steps, batch_size=256, seed=seed, condition_dropout=0.0,
            optimiser=Optimiser(lr=1e-3), averages=Averages(ema=0.999),
        )  # fmt: skip

    probe = 50  # how long a step takes
    begun = time.process_time()
    Trainer(model, data, config(probe)).train(progress=False)
    spent = time.process_time() - begun
    steps = max(int(probe * (seconds - spent) / spent), 1)
    trained = Trainer(model, data, config(steps)).train(progress=False)

    def draw(y: Tensor, k: int, seed: int) -> Tensor:
        x = scoresde.sample(
            trained, sampler="dpmpp_2m", steps=40, n=len(y) * k, seed=seed, progress=False,
            condition={"y": y.float().repeat_interleave(k, 0)}, units=True,
            batch_size=min(len(y) * k, 50_000),
        )  # fmt: skip
        return x.unflatten(0, (len(y), k))

    return draw


def theirs(task: Task, theta: Tensor, y: Tensor, seconds: float, seed: int) -> Draw:
    """Train NPSE for some seconds or until it stops; return a function that draws from it."""
    from sbi.inference import NPSE

    torch.manual_seed(seed)
    inference = NPSE(prior=task.prior, show_progress_bars=False)
    inference.append_simulations(theta, y)
    begun, epochs = time.process_time(), 10
    inference.train(max_num_epochs=epochs)
    while time.process_time() - begun < seconds:
        before = time.process_time()
        epochs += 10
        inference.train(max_num_epochs=epochs, resume_training=True)
        if time.process_time() - before < 0.05:
            break  # it has met its own criterion
    posterior = inference.build_posterior()

    def draw(y: Tensor, k: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.stack(
            [posterior.sample((k,), x=row, show_progress_bars=False) for row in y.float()]
        )

    return draw


def c2st(draws: Tensor, exact: Tensor) -> float:
    """Return the accuracy of a classifier that separates draws from exact draws."""
    from sbi.utils.metrics import c2st as accuracy

    return float(accuracy(draws, exact))


def compare(task: Task, options: Options, seed: int) -> tuple[list[float], Draw]:
    """Return the C2ST of ours and theirs for one training of each, and the draws of ours."""
    theta, y = task.simulate(options.simulations, seed)
    _, observed = task.simulate(options.observations, 10_000 + seed)
    methods = [ours(theta, y, options.seconds, seed)]
    if options.peer:
        methods.append(theirs(task, theta, y, options.seconds, seed))
    scores: list[float] = []
    for draw in methods:
        drawn = draw(observed, options.draws, seed)
        g = torch.Generator().manual_seed(seed)
        exact = [task.posterior(row, options.draws, g) for row in observed]
        if options.peer:
            pairs = zip(drawn, exact, strict=True)
            scores.append(sum(c2st(a, b) for a, b in pairs) / len(observed))
    return scores, methods[0]


def main(options: Options) -> None:
    """Compare and print."""
    if options.short:
        options = Options(
            seconds=0.5, simulations=200, seeds=1, observations=1, draws=20, calibrated=20,
            peer=False,
        )  # fmt: skip
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of sbi
    print("| problem | ours | sbi | ours − sbi, 95 % | calibration |")
    print("| --- | --- | --- | --- | --- |")
    for name in options.tasks:
        task, found, draw = TASKS[name], [], None
        for seed in range(options.seeds):
            scores, draw = compare(task, options, seed)
            found.append(scores)
            print(f"    {name}, seed {seed}: {', '.join(f'{s:.3f}' for s in scores)}", flush=True)
        judged = calibrate(draw, task.simulate, n=options.calibrated, rerun=False, progress=False)
        one, two, gap = math.nan, math.nan, "-"
        if options.peer:
            table = torch.tensor(found, dtype=torch.float64)
            one, two = table.mean(0).tolist()
            low, high = mean_interval(table[:, 0] - table[:, 1])
            gap = f"{one - two:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"| {name} | {one:.3f} | {two:.3f} | {gap} | {judged.verdict()} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
