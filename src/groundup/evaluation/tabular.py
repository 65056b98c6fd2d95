"""Exact planning where every step's probabilities are known: the best values and policy of a small environment, and
exactly what a policy returns, so that learned policies have something to be held to. Nothing is sampled here.

The table of an environment comes in as plain numbers: for each state and action a list of
(probability, next state, reward, terminated), as FrozenLake, CliffWalking and Taxi of gymnasium have in `P`.

Shapes: S states, A actions, N entries of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.errors import GroundupError

Values = NDArray[np.float64]
Table = Mapping[int, Mapping[int, Sequence[tuple[float, int, float, bool]]]]

TIE = 1e-9
"""Actions whose values differ by less, in units of the largest value, are as good as each other."""


@dataclass(frozen=True)
class Dynamics:
    """A table of transitions as arrays.

    Attributes:
        states, actions: how many there are.
        pair_N: state · actions + action of each entry, int64.
        next_N: the state that it leads to, int64.
        probability_N, reward_N: float64.
        terminated_N: bool: nothing follows the step.
        reward_SA: the expected reward of each action.
    """

    states: int
    actions: int
    pair_N: NDArray[np.int64]
    next_N: NDArray[np.int64]
    probability_N: Values
    reward_N: Values
    terminated_N: NDArray[np.bool_]

    @property
    def reward_SA(self) -> Values:
        """The expected reward of each action."""
        return self.sum(self.probability_N * self.reward_N)

    def look_ahead(self, value_S: Values, discount: float) -> Values:
        """Σ p (r + discount · V(s')) of each state and action, (S, A); V counts as 0 after the end of an episode."""
        later_N = np.where(self.terminated_N, 0.0, value_S[self.next_N])
        return self.sum(self.probability_N * (self.reward_N + discount * later_N))

    def under(self, policy_SA: Values) -> tuple[Values, Values]:
        """Under a policy: the chances (S, S) to go on from one state to another, and the expected rewards (S,)."""
        share_N = policy_SA.ravel()[self.pair_N] * self.probability_N
        share_N = np.where(self.terminated_N, 0.0, share_N)
        onward_SS = np.zeros((self.states, self.states))
        np.add.at(onward_SS, (self.pair_N // self.actions, self.next_N), share_N)
        return onward_SS, (policy_SA * self.reward_SA).sum(axis=1)

    def sum(self, amount_N: Values) -> Values:
        """The sum over the entries of each state and action, (S, A)."""
        sum_P = np.zeros(self.states * self.actions)
        np.add.at(sum_P, self.pair_N, amount_N)
        return sum_P.reshape(self.states, self.actions)


@dataclass(frozen=True)
class Plan:
    """The optimum.

    Attributes:
        value_S: the expected discounted return from each state, float64.
        policy_S: a best action of each state, int64; the first among equals.
        rounds: sweeps of value iteration, or improvements of policy iteration.
    """

    value_S: Values
    policy_S: NDArray[np.int64]
    rounds: int


def dynamics(table: Table) -> Dynamics:
    """The table as arrays.

    Raises:
        GroundupError: E-ENV-013, all faults at once: states that are not 0, 1, …, other actions in one state than in
            the first, probabilities that do not sum to 1, unknown next states, rewards that are not finite.
    """
    states = len(table)
    actions = len(table[0]) if 0 in table else 0
    faults, entries = [], []
    for state in range(states):
        choices = table.get(state, {})
        if not actions or sorted(choices) != list(range(actions)):
            faults.append(f"state {state} has the actions {sorted(choices)}, expected 0 to {actions - 1}")
            continue
        for action in range(actions):
            outcomes = choices[action]
            total = sum(outcome[0] for outcome in outcomes)
            if abs(total - 1.0) > 1e-6 or any(outcome[0] < 0.0 for outcome in outcomes):
                faults.append(f"state {state}, action {action}: probabilities sum to {total:g}, or one is negative")
            for probability, following, reward, terminated in outcomes:
                if not 0 <= following < states or not np.isfinite(reward):
                    faults.append(f"state {state}, action {action} leads to {following}, reward {reward}")
                entries.append((state * actions + action, following, probability, reward, terminated))
    if faults or not states:
        _malformed(faults or ["it has no state"], states)
    pair_N, next_N, probability_N, reward_N, terminated_N = (np.array(column) for column in zip(*entries))
    return Dynamics(
        states,
        actions,
        pair_N.astype(np.int64),
        next_N.astype(np.int64),
        probability_N.astype(np.float64),
        reward_N.astype(np.float64),
        terminated_N.astype(np.bool_),
    )


def value_iteration(model: Dynamics, discount: float, *, tolerance: float = 1e-12, limit: int = 100_000) -> Plan:
    """The optimum by V ← max_a Σ p (r + discount · V(s')), from V = 0 until it changes by `tolerance` at most (Sutton &
    Barto 2018, section 4.4).

    With discount 1 it needs that no circle of states pays; a policy of equal values may then run in circles, so plan
    with a discount below 1 and measure with `expected_return`.

    Raises:
        GroundupError: E-ENV-014 it does not converge within `limit` sweeps.
    """
    value_S: Values = np.zeros(model.states)
    for sweep in range(1, limit + 1):
        better_S = np.asarray(model.look_ahead(value_S, discount).max(axis=1), dtype=np.float64)
        change = float(np.abs(better_S - value_S).max())
        value_S = better_S
        if change <= tolerance * max(1.0, float(np.abs(value_S).max())):
            return Plan(value_S, _first_best(model.look_ahead(value_S, discount)), sweep)
    raise GroundupError(
        "E-ENV-014",
        f"the values still change by {change:.3g} after {limit:,} sweeps",
        where=f"value iteration, discount {discount:g}",
        why="with a discount of 1, states that pay again and again have no finite value",
        fix="use a discount below 1, such as 0.99",
        exit_code=2,
    )


def policy_iteration(model: Dynamics, discount: float) -> Plan:
    """The optimum by solving for the values of a policy, improving the policy, and so on until it stays (Howard 1960;
    Sutton & Barto 2018, section 4.3). Exact but for rounding; needs memory for S² numbers.

    Args:
        discount: below 1.

    Raises:
        GroundupError: E-ENV-014 the discount is not below 1.
    """
    if not 0.0 <= discount < 1.0:
        raise GroundupError(
            "E-ENV-014",
            f"policy iteration was given a discount of {discount:g}",
            where="policy iteration",
            why="a policy on the way may never end an episode, and then only a discount below 1 gives it finite values",
            fix="use a discount of 0 or more and below 1, such as 0.99",
            exit_code=2,
        )
    policy_S = np.zeros(model.states, dtype=np.int64)
    rounds = 0
    while True:
        onward_SS, reward_S = model.under(one_hot(policy_S, model.actions))
        value_S = np.linalg.solve(np.eye(model.states) - discount * onward_SS, reward_S).astype(np.float64)
        ahead_SA = model.look_ahead(value_S, discount)
        gain_S = ahead_SA.max(axis=1) - ahead_SA[np.arange(model.states), policy_S]
        worth_it_S = gain_S > TIE * max(1.0, float(np.abs(value_S).max()))
        if not worth_it_S.any():
            return Plan(value_S, _first_best(ahead_SA), rounds)
        policy_S = np.where(worth_it_S, ahead_SA.argmax(axis=1), policy_S)
        rounds += 1


def expected_return(
    model: Dynamics, policy: NDArray[np.generic], start_S: Sequence[float], time_limit: int | None = None
) -> float:
    """The expected undiscounted return of a policy, exactly.

    Args:
        policy: an action for each state, int64 (S,), or probabilities, float64 (S, A).
        start_S: probability of each state to be the first.
        time_limit: steps after which an episode is cut off; None for none.

    Raises:
        GroundupError: E-ENV-015 without a limit of steps: the policy may never end its episode.
    """
    onward_SS, reward_S = model.under(_probabilities(policy, model))
    return _accumulated(onward_SS, reward_S, start_S, time_limit)


def one_hot(policy_S: NDArray[np.int64], actions: int) -> Values:
    """Probabilities (S, A) of a policy that always takes the same action in a state."""
    return np.eye(actions)[policy_S]


def _accumulated(onward_SS: Values, gain_S: Values, start_S: Sequence[float], time_limit: int | None) -> float:
    """The sum over the steps of the expected gain, from the start."""
    present_S = np.asarray(start_S, dtype=np.float64)
    if time_limit is not None:
        total = 0.0
        for _ in range(time_limit):
            total += float(present_S @ gain_S)
            present_S = present_S @ onward_SS
        return total
    seen_S, before = present_S > 0.0, 0
    while before != seen_S.sum():  # only what is reached from the start matters
        before = int(seen_S.sum())
        seen_S = seen_S | (onward_SS[seen_S] > 0.0).any(axis=0)
    within_SS = onward_SS[np.ix_(seen_S, seen_S)]
    ends_S = within_SS.sum(axis=1) < 1.0 - TIE
    for _ in range(len(ends_S)):
        ends_S = ends_S | (within_SS[:, ends_S] > 0.0).any(axis=1)
    if not ends_S.all():
        raise GroundupError(
            "E-ENV-015",
            f"a policy never ends its episode from {int((~ends_S).sum()):,} of {len(ends_S):,} states that it comes to",
            where="the return of a policy without a limit of steps",
            why="the sum of rewards without end has no value",
            fix="give the limit of steps of the environment",
            exit_code=2,
        )
    value_S = np.linalg.solve(np.eye(len(within_SS)) - within_SS, gain_S[seen_S])
    return float(present_S[seen_S] @ value_S)


def _probabilities(policy: NDArray[np.generic], model: Dynamics) -> Values:
    if policy.ndim == 1:
        return one_hot(policy.astype(np.int64), model.actions)
    return policy.astype(np.float64)


def _first_best(ahead_SA: Values) -> NDArray[np.int64]:
    """The first action whose value is within rounding of the best."""
    best_S = ahead_SA.max(axis=1, keepdims=True)
    return (ahead_SA >= best_S - TIE * max(1.0, float(np.abs(best_S).max()))).argmax(axis=1)


def _malformed(faults: list[str], states: int) -> None:
    shown = faults[:10]
    rest = [f"and {len(faults) - len(shown)} more"] if len(faults) > len(shown) else []
    raise GroundupError(
        "E-ENV-013",
        f"{len(faults):,} faults in a table of transitions of {states:,} states",
        where="\n".join([*shown, *rest]),
        why="exact planning is only as right as its table",
        fix="number states and actions from 0, and let the probabilities of each action sum to 1",
    )
