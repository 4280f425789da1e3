"""What the toy shop sells: shoes, chairs and handbags, each drawn from a handful of parameters.

Every category names its *shape* (numbers in a range and the overall kind) and its *details* (choices): the details
are what a person would mention and what the middle of a network has to see. A drawing function turns the parameters of
one object into strokes; it never draws anything at random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from .strokes import Pen


@dataclass(frozen=True)
class Category:
    """shape: name -> (low, high) or tuple of kinds; details: name -> tuple of choices; draw(pen, parameters)."""

    name: str
    shape: dict[str, tuple]
    details: dict[str, tuple[str, ...]]
    draw: Callable[[Pen, SimpleNamespace], None]
    yaw: float = 0.0
    pitch: float = 0.0

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.shape, *self.details)

    def decode(self, vector: np.ndarray) -> SimpleNamespace:
        """Numbers in 0 .. 1, one per parameter -> the values that ``draw`` takes."""
        values = {}
        for u, (name, domain) in zip(vector, {**self.shape, **self.details}.items(), strict=True):
            if isinstance(domain[0], str):
                values[name] = domain[min(int(u * len(domain)), len(domain) - 1)]
            else:
                values[name] = domain[0] + float(u) * (domain[1] - domain[0])
        return SimpleNamespace(**values)


def mix(a, b, t):
    return tuple((1 - t) * p + t * q for p, q in zip(a, b, strict=True))


def arc(centre, radii, begin, end, count=7):
    angle = np.radians(np.linspace(begin, end, count))
    return np.stack([centre[0] + radii[0] * np.cos(angle), centre[1] + radii[1] * np.sin(angle)], 1)


def bow(pen, x, y, size):
    for side in (-1, 1):
        pen.solid([(x, y), (x + side * size, y + 0.55 * size), (x + side * 1.15 * size, y - 0.05 * size),
                   (x + side * 0.9 * size, y - 0.5 * size)])
        pen.line([(x, y), (x + side * 0.35 * size, y - 0.5 * size), (x + side * 0.5 * size, y - 1.0 * size)])
    pen.ring((x, y), 0.22 * size, corners=6)
