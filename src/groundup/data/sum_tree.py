"""Draw numbers in proportion to their priorities, and change priorities, in logarithmic time: a binary tree whose
inner nodes hold the sums of what is below them (Schaul et al. 2015, arXiv:1511.05952, appendix B.2.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SumTree:
    """Priorities of `capacity` places, float64, all 0 at first. Node 1 is the root, node n has the children 2n and
    2n + 1, and the leaves stand at the end.

    A sum is always that of its two children, never carried along, so that it depends on the leaves alone.
    """

    def __init__(self, capacity: int) -> None:
        self.leaves = 1 << max(capacity - 1, 1).bit_length()
        self.levels = self.leaves.bit_length() - 1
        self._sum = np.zeros(2 * self.leaves)

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return float(self._sum[1])

    def get(self, place_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """Priorities of places."""
        return self._sum[self.leaves + place_N]

    def set(self, place_N: NDArray[np.int64], priority_N: NDArray[np.float64]) -> None:
        """Change priorities; where a place stands twice, the last one counts."""
        node_N = self.leaves + place_N
        self._sum[node_N] = priority_N
        for _ in range(self.levels):
            node_N = np.unique(node_N >> 1)
            self._sum[node_N] = self._sum[2 * node_N] + self._sum[2 * node_N + 1]

    def find(self, mass_N: NDArray[np.float64]) -> NDArray[np.int64]:
        """The places at which the running sum of the priorities first exceeds each mass, 0 up to `total`.

        A place of priority 0 is never found, also where rounding takes a mass past the end.
        """
        mass_N, node_N = mass_N.copy(), np.ones(len(mass_N), dtype=np.int64)
        for _ in range(self.levels):
            left_N = self._sum[2 * node_N]
            right_N = (mass_N >= left_N) & (self._sum[2 * node_N + 1] > 0.0)
            mass_N -= np.where(right_N, left_N, 0.0)
            node_N = 2 * node_N + right_N
        return node_N - self.leaves
