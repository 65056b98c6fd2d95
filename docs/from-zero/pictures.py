"""The pictures of these chapters, drawn with the standard library alone. `python docs/from-zero/pictures.py` writes
them anew; a test compares what is committed with what this file draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent / "images"

Point = tuple[float, float]
Curve = Callable[[float], float]

STEEP = 20.0
"""Curvature of the valley across, where it is 1 along."""

START = (-9.0, 2.5)
BLUE, RED, GREEN, GREY = "#1f6fb2", "#c2410c", "#15803d", "#6b7280"


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def normal(x: float) -> float:
    """The share of a standard normal distribution below x."""
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))


def density(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


ACTIVATIONS: dict[str, tuple[Curve, Curve]] = {
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * (1.0 - sigmoid(x))),
    "tanh": (math.tanh, lambda x: 1.0 - math.tanh(x) ** 2),
    "relu": (lambda x: max(0.0, x), lambda x: 1.0 if x > 0.0 else 0.0),
    "gelu": (lambda x: x * normal(x), lambda x: normal(x) + x * density(x)),
}
"""Each curve and its derivative."""


def page(width: int, height: int, title: str, parts: list[str]) -> str:
    """A whole SVG file."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            'font-family="sans-serif" font-size="13">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def line(points: list[Point], colour: str, *, dashed: bool = False, thick: float = 2.0) -> str:
    """A line through points, in pixels."""
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="{thick:g}"{dash}/>'


def text(x: float, y: float, said: str, colour: str = "#111827") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}">{said}</text>'


def activations() -> str:
    """Each activation from -4 to 4 in a panel of its own, and its derivative, dashed."""
    parts = []
    for number, (name, (curve, slope)) in enumerate(ACTIVATIONS.items()):
        left = 20 + 190 * number

        def place(x: float, y: float, left: int = left) -> Point:
            return left + 20 * (x + 4), 150 - 40 * y

        xs = [0.05 * step - 4.0 for step in range(161)]
        parts.append(line([place(-4, 0), place(4, 0)], GREY, thick=1))
        parts.append(line([place(0, -1.2), place(0, 3)], GREY, thick=1))
        parts.append(line([place(x, curve(x)) for x in xs if curve(x) <= 3.0], BLUE))
        parts.append(line([place(x, slope(x)) for x in xs], RED, dashed=True))
        parts.append(text(left, 24, name))
    parts.append(text(20, 222, "σ(z)", BLUE))
    parts.append(text(70, 222, "σ′(z), dashed", RED))
    return page(780, 236, "Activations and their derivatives, from -4 to 4", parts)


def slope_at(at: Point) -> Point:
    """The gradient of ½ (x² + STEEP · y²)."""
    return at[0], STEEP * at[1]


def descent(rate: float, steps: int) -> list[Point]:
    path = [START]
    for _ in range(steps):
        (x, y), (dx, dy) = path[-1], slope_at(path[-1])
        path.append((x - rate * dx, y - rate * dy))
    return path


def momentum(rate: float, keep: float, steps: int) -> list[Point]:
    path, moving = [START], (0.0, 0.0)
    for _ in range(steps):
        (x, y), (dx, dy) = path[-1], slope_at(path[-1])
        moving = (keep * moving[0] + dx, keep * moving[1] + dy)
        path.append((x - rate * moving[0], y - rate * moving[1]))
    return path


def adam(rate: float, steps: int, beta1: float = 0.9, beta2: float = 0.999) -> list[Point]:
    path, mean, square = [START], [0.0, 0.0], [0.0, 0.0]
    for step in range(1, steps + 1):
        at, gradient = list(path[-1]), slope_at(path[-1])
        for axis in (0, 1):
            mean[axis] = beta1 * mean[axis] + (1 - beta1) * gradient[axis]
            square[axis] = beta2 * square[axis] + (1 - beta2) * gradient[axis] ** 2
            root = math.sqrt(square[axis] / (1 - beta2**step)) + 1e-8
            at[axis] -= rate * (mean[axis] / (1 - beta1**step)) / root
        path.append((at[0], at[1]))
    return path


def optimizers() -> str:
    """Contours of the valley, and the paths of three optimizers from one start."""

    def place(at: Point) -> Point:
        return 320 + 30 * at[0], 150 + 45 * at[1]

    parts = []
    for height in (1.0, 5.0, 15.0, 35.0, 65.0):
        across, along = math.sqrt(2 * height / STEEP) * 45, math.sqrt(2 * height) * 30
        parts.append(f'<ellipse cx="320" cy="150" rx="{along:.1f}" ry="{across:.1f}" fill="none" stroke="#d1d5db"/>')
    paths = {
        "gradient descent": (descent(0.095, 40), RED),
        "momentum": (momentum(0.02, 0.8, 60), BLUE),
        "Adam": (adam(0.5, 60), GREEN),
    }
    for number, (name, (path, colour)) in enumerate(paths.items()):
        parts.append(line([place(at) for at in path], colour, thick=1.5))
        parts.append(text(440, 24 + 18 * number, name, colour))
    x, y = place(START)
    parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="#111827"/>')
    parts.append('<circle cx="320" cy="150" r="4" fill="none" stroke="#111827" stroke-width="2"/>')
    return page(640, 300, "Three optimizers in a valley that is 20 times as steep across as along", parts)


PICTURES = {"activations.svg": activations, "optimizers.svg": optimizers}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")
