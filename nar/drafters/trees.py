"""Shapes of trees: written as text, and the best one for measured acceptances."""

import functools
import itertools
from collections.abc import Sequence

from nar.errors import NarError, at_least

Parents = tuple[int, ...]
"""A tree: the parent of every node, level by level; the root's is -1."""


MOST_NODES = 1024
"""No call of a model is worth more guesses."""


def read_tree(branches: int | str, depth: int) -> Parents:
    """The tree that a text describes.

    Args:
        branches: levels with "-" between. A level says how many children the nodes of the level
            before have, with "." between where they differ: "3-2-1" gives the root three
            children and these two each; "3-2.1.0" two to the first, one to the second and none
            to the third. The last number of a level goes on, and so does the last level.
        depth: levels of the tree, at least 1.

    Raises:
        NarError: the text is no tree, or one of another depth, or the tree is too large.
    """
    at_least("guesses", depth, 1)
    words = str(branches).split("-")
    if len(words) > depth:
        raise NarError(f"branches={branches!r} has {len(words)} levels, and guesses={depth}")
    parents, level = [-1], [0]
    for place in range(depth):
        word = words[min(place, len(words) - 1)]
        counts = word.split(".")
        surplus = place < len(words) and len(counts) > len(level)
        if surplus or not all(map(str.isdecimal, counts)):
            raise NarError(
                f"branches={branches!r}: {word!r} is no level for {len(level)} nodes; write "
                "numbers of children, as in 3-2-1, or 3-2.1.0-1 where they differ"
            )
        each = itertools.chain(map(int, counts), itertools.repeat(int(counts[-1])))
        counted = list(zip(level, each, strict=False))
        if not 0 < sum(count for _, count in counted) <= MOST_NODES - len(parents):
            raise NarError(
                f"branches={branches!r} and guesses={depth}: level {place + 1} of the tree must "
                f"have a node, and the tree at most {MOST_NODES}"
            )
        children = [node for node, count in counted for _ in range(count)]
        level = list(range(len(parents), len(parents) + len(children)))
        parents += children
    return tuple(parents)


def write_tree(parents: Parents) -> str:
    """The text that `read_tree` reads: a level for every depth of the tree."""
    levels, level = [], [0]
    while children := [node for node, parent in enumerate(parents) if parent in level]:
        counts = [parents.count(node) for node in level]
        levels.append(".".join(map(str, counts if len(set(counts)) > 1 else counts[:1])))
        level = children
    return "-".join(levels)


def expected_length(parents: Parents, rates: Sequence[Sequence[float]]) -> float:
    """The expected number of accepted guesses.

    Args:
        parents: the tree.
        rates: `rates[d][r]` is the probability that a guess at depth d + 1 which is the drafter's
            choice number r is accepted, where its parent was.
    """
    depth, accepted = [0], [1.0]
    for node, parent in enumerate(parents[1:], start=1):
        rank = parents[:node].count(parent)
        accepted.append(accepted[parent] * rates[depth[parent]][rank])
        depth.append(depth[parent] + 1)
    return sum(accepted[1:])


def best_tree(rates: Sequence[Sequence[float]], guesses: int) -> Parents:
    """The tree of so many guesses whose expected number of accepted ones is largest.

    By dynamic programming over (depth, rank, guesses left), as Sequoia builds its trees (Chen et
    al. 2024, https://arxiv.org/abs/2402.12374, section 3.1), here with rates by depth as well as
    rank, which Medusa measures (Cai et al. 2024, https://arxiv.org/abs/2401.10774, section 2.3.3).

    Args:
        rates: as for `expected_length`; a tree is at most as deep, and a node has at most as many
            children, as there are rates.
        guesses: nodes without the root.

    Raises:
        NarError: there are no rates for so many guesses.
    """
    at_least("guesses", guesses, 1)

    @functools.cache
    def forest(depth: int, rank: int, left: int) -> tuple[float, tuple]:
        """What siblings from `rank` on are worth with `left` nodes, and the subtrees they root."""
        if not left:
            return 0.0, ()
        if depth == len(rates) or rank == len(rates[depth]):
            return -float("inf"), ()
        options = []
        for below in range(left):
            inner, subtree = forest(depth + 1, 0, below)
            others, siblings = forest(depth, rank + 1, left - 1 - below)
            value = rates[depth][rank] * (1 + inner) if inner >= 0 else inner
            options.append((value + others, (subtree, *siblings)))
        return max(options, key=lambda option: option[0])

    value, siblings = forest(0, 0, guesses)
    if value < 0:
        raise NarError(f"guesses={guesses}: these rates are of fewer")
    parents, level = [-1], [(0, siblings)]
    while level:
        deeper = []
        for node, subtrees in level:
            deeper += [(len(parents) + i, subtree) for i, subtree in enumerate(subtrees)]
            parents += [node] * len(subtrees)
        level = deeper
    return tuple(parents)
