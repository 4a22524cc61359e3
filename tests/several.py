"""Run one case of `test_distributed.py` in several processes, started by `torchrun`.

Every case ends in the same way in every process, or the next one would wait for ever.
"""

import errno
import math
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

import scoresde.cli
from scoresde import checkpoint, distributed
from scoresde.data import Data
from scoresde.errors import DataError
from scoresde.nn import MLP, UNet
from scoresde.objectives import LearnedWeight, dsm_loss
from scoresde.score import ScoreModel
from scoresde.sde import VESDE, Moments
from scoresde.training import TrainConfig, Trainer

CONFIG = TrainConfig().changed(steps=20, batch_size=12, warmup=3, save_every=8, log_every=2)
SHORT = CONFIG.changed(steps=8, save_every=3, log_every=2)
RUNS = {
    "float32": (torch.float32, {}),
    "float64": (torch.float64, {}),
    "in parts": (torch.float64, dict(accumulate=3)),
    "in shares": (
        torch.float64,
        dict(shard=True, accumulate=3, recompute=True, ema=(0.999, 0.9), ema_sigma=(0.1,)),
    ),
    "muon, learned weight": (
        torch.float64,
        dict(rule="muon", weight_decay=0.1, accumulate=2, held_out=0.2),
    ),
    "muon, learned weight in shares": (
        torch.float64,
        dict(rule="muon", weight_decay=0.1, shard=True, held_out=0.2),
    ),
}


def data(dtype=torch.float32):
    """37 samples in batches of 12: epochs end within a batch, and within a process's rows."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(37, 1, 4, 4, generator=g, dtype=torch.float64).to(dtype)
    y = x[:, 0, 1, :3].where(x[:, 0, 2, :3] < 1, torch.nan)
    return Data(x, label=(x[:, 0, 0, 0] > 0).long(), y=y, forcing=x.flip(0))


def built(make, *args, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make(*args, **options)


def model(dtype=torch.float32, seed=0, **options):
    known = dict(num_classes=2, condition={"y": (3,), "forcing": 1})
    net = built(UNet, 1, channels=(4, 6), features=8, seed=seed, **known, **options)
    return ScoreModel(net, VESDE(), (1, 4, 4), moments=Moments(0.0, var=1.0)).to(dtype)


class Acting(nn.Module):
    """Define a network that does something at its n-th evaluation."""

    def __init__(self, n, act):
        super().__init__()
        known = dict(num_classes=2, condition={"y": 3, "forcing": (1, 4, 4)})
        self.net, self.n, self.act = built(MLP, (1, 4, 4), hidden=(4,), **known), n, act

    def __deepcopy__(self, memo):
        return Acting(0, None)

    def forward(self, x, c, **condition):
        self.n -= 1
        out = self.net(x, c, **condition)
        return self.act(out) if self.n == 0 else out


def acting(n, act, only=1):
    """Return the model whose network acts in one process alone."""
    return ScoreModel(Acting(n if distributed.rank() == only else 0, act), VESDE(), (1, 4, 4))


def train(folder, runs=RUNS):
    for name, (dtype, options) in runs.items():
        config = CONFIG.changed(snapshot_every=10, **options)
        for steps in (9, None):
            # other first weights in every process: those of process 0 count
            start = model(dtype, seed=distributed.rank())
            loss = LearnedWeight(dsm_loss).to(dtype) if "learned" in name else None
            Trainer(start, data(dtype), config, loss=loss, folder=folder / name).train(steps)


def term(out):
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)  # the signal that torchrun sends a second time
    return out


def signalled(folder):
    Trainer(acting(4, term), data(), SHORT, folder=folder / "signal").train()


def not_a_number(folder):
    Trainer(acting(5, lambda out: out * math.nan), data(), SHORT, folder=folder / "nan").train()


def left_out(folder):
    """The step of a gradient that is no number in one process alone, and the weights of each."""
    config = SHORT.changed(on_nan="skip")
    trainer = Trainer(acting(5, lambda out: out * math.nan), data(), config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    said = [str(warning.message) for warning in caught if "skipped" in str(warning.message)]
    return said, [p.detach().double().sum().item() for p in trainer.score.net.parameters()]


def unreadable(folder):
    """A sample that one process alone cannot read, in a batch and then in the data set aside."""
    batches = 0

    def lost(x, generator):
        nonlocal batches
        batches += distributed.rank()
        # each of the first samples is augmented twice
        if batches > 2 * 5 * len(range(12)[distributed.rows(12)]):
            raise DataError("sample 7 is gone")
        return x

    def blind(score, sde, x, **options):
        if not torch.is_grad_enabled() and distributed.is_main():  # it evaluates the first 12
            raise DataError("sample 9 is gone")
        return dsm_loss(score, sde, x, **options)

    said = []
    for name, own, given in (
        ("batch", SHORT, dict(augment=lost)),
        ("aside", SHORT.changed(held_out=0.3), dict(loss=blind)),
    ):
        trainer = Trainer(acting(0, None), data(), own, folder=folder / f"lost-{name}", **given)
        try:
            trainer.train()
        except DataError as error:
            said.append([trainer.step, str(error)])
    return said


def full_disk(folder):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    trainer = Trainer(acting(0, None), data(), SHORT, folder=folder / "full")
    fsync, os.fsync = os.fsync, full
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.train()
    finally:
        os.fsync = fsync


def damaged(folder):
    """Let all processes pass over a checkpoint that process 0 finds damaged."""
    Trainer(acting(0, None), data(), SHORT, folder=folder / "damaged").train()
    if distributed.is_main():
        newest = folder / "damaged/step-00000008.safetensors"
        newest.write_bytes(newest.read_bytes()[:500])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(acting(0, None), data(), SHORT, folder=folder / "damaged")
    step = trainer.step
    trainer.train()
    return step


def undisturbed(folder):
    Trainer(acting(0, None), data(), SHORT, folder=folder / "undisturbed").train()


def resumed(folder):
    return Trainer(acting(0, None), data(), SHORT, folder=folder)


FILES = ("drawn.npy", "drawn.safetensors", "drawn.png", "drawn")


def sampled(folder):
    """The command line, within the group of these processes or alone: 11 samples by 4."""
    few = ["--n", "11", "--batch-size", "4", "--steps", "3", "--seed", "5"]
    for name in FILES:
        words = ["sample", str(folder / "float32"), "--out", str(folder / name), *few]
        assert scoresde.cli.main(words) == 0


def shares(folder):
    """How many numbers this process holds, in shares and otherwise."""
    found = []
    for shard in (True, False):
        trainer = Trainer(model(), data(), SHORT.changed(shard=shard))
        result = trainer.train(2)
        averages = [p for average in trainer.ema._all for p in average.model.parameters()]
        moments = [v for slot in trainer.optimizer.state.values() for v in slot.values()]
        held = [*trainer.score.parameters(), *averages, *moments]
        held = [v.to_local() if hasattr(v, "to_local") else v for v in held]
        found.append(sum(v.numel() for v in held))
        with torch.no_grad():  # of whole weights, in each process
            found.append(float(result(torch.ones(1, 1, 4, 4), 0.5).sum()))
    return found


def uneven(folder):
    Trainer(model(), data(), SHORT.changed(batch_size=9))


def indivisible(folder):
    Trainer(model(), data(), SHORT.changed(accumulate=4))


def other_arguments(folder):
    Trainer(model(), data(), SHORT.changed(lr=1e-3 * (1 + distributed.rank())))


def other_folder(folder):
    Trainer(acting(0, None), data(), SHORT, folder=folder if distributed.is_main() else None)


def other_weights(folder):
    Trainer(model(torch.float64 if distributed.rank() else torch.float32), data(), SHORT)


def other_steps(folder):
    Trainer(model(), data(), SHORT).train(1 + distributed.rank())


def unreached(folder):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Parameter(torch.zeros(()))
            self.idle = nn.Parameter(torch.zeros(()))

        def forward(self, x, c, **condition):
            return self.used * x

    Trainer(ScoreModel(Idle(), VESDE(), (1, 4, 4)), data(), SHORT).train()


def failing_main(folder):
    def fail():
        raise KeyError("only here")

    distributed.on_main(fail)


def spoken(folder):
    """Numbers and tensors that the processes exchange."""
    here = distributed.rank()
    own = {"a": torch.tensor([1.5, -0.0]), "b": torch.tensor(7), "c": torch.zeros(0, 3).bool()}
    found = distributed.shared(own if here == 0 else {})
    assert {k: (v.dtype, v.shape) for k, v in found.items()} == {
        k: (v.dtype, v.shape) for k, v in own.items()
    }
    return {
        "rows": [distributed.rows(12).start, distributed.rows(12).stop],
        "largest": distributed.largest(10 * here),
        "mean": distributed.mean(torch.tensor([2.0 * here, 1.0])).tolist(),
        "on_main": distributed.on_main(lambda: ["Grüße", here]),
        "shared": {k: v.tolist() for k, v in found.items()},
    }


EVER = CONFIG.changed(steps=40, save_every=2)


def ever(folder):
    """Return a run without end, to be killed."""
    trainer = Trainer(model(), data(), EVER, folder=folder)
    trainer.train()
    return trainer


CASES = [
    signalled, not_a_number, left_out, unreadable, full_disk, damaged, undisturbed, sampled, shares,
    uneven, indivisible, other_arguments, other_folder, other_weights, other_steps, unreached,
    failing_main, spoken,
]  # fmt: skip


def main(folder):
    train(folder)
    ever(folder / "ever")
    ends = {}
    for case in CASES:
        try:
            ends[case.__name__] = case(folder)
        except (Exception, SystemExit) as error:
            ends[case.__name__] = f"{type(error).__name__}: {error}"
    checkpoint.write_json(folder / f"process-{distributed.rank()}.json", ends)


def threads():
    """How many threads of gloo's there are, two to a group."""
    names = [task.read_text() for task in Path("/proc/self/task").glob("*/comm")]
    return sum(name.startswith("pt_gloo") for name in names)


if __name__ == "__main__":
    torch.set_num_threads(1)
    act, folder = sys.argv[1], Path(sys.argv[2])
    with distributed.group(timeout=240):
        held = {"main": main, "ever": ever}[act](folder)
        count = {"within": threads()}
    count["after"] = threads()
    for _ in range(3):  # a group that looked for the addresses of an earlier one found nobody
        with distributed.group(timeout=20):
            count["again"] = distributed.largest(distributed.rank())
    checkpoint.write_json(folder / f"threads-{os.environ['RANK']}.json", count)
