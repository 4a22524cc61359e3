"""Define noise whose numbers a test chooses."""

from torch import Tensor

from scoresde.noise import Noise


class Given(Noise):
    """Noise with these numbers in place of random ones.

    Args:
        z: The noise of the states, `(B, *)`.
        v: The numbers of its forks, such as directions.
    """

    def __init__(self, z: Tensor, v: Tensor | None = None):
        self.z, self.v = z, v

    def __len__(self):
        return len(self.z)

    def fork(self, k):
        return Given(self.v)

    def normal(self, like, t, k=0):
        return self.z.expand(like.shape).to(like)
