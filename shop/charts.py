"""Figures as SVG, drawn here: bars on top of each other, or lines of percentages. Colours are the stylesheet's.

The picture is for the eyes only; the table beside it has the same numbers for everyone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from shop.figures import Figure, Series

WIDTH, HEIGHT = 400, 190
LEFT, RIGHT, TOP, BOTTOM = 50, 6, 8, 24
GRID = 4  # lines above the ground
LETTER = 7.5  # how wide one is, on a phone too


def drawn(figure: Figure) -> SafeString:
    """The chart; empty if there is nothing to draw."""
    if not figure.series:
        return SafeString()
    top = 100.0 if figure.is_rate else _round_up(max(map(sum, _columns(figure))))
    marks = _lines(figure, top) if figure.is_rate else _bars(figure, top)
    return format_html(
        '<svg class="vk-chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>',
        WIDTH, HEIGHT, f"{figure.title}. {figure.says}", _grid(top, figure.is_rate), _names(figure), marks,
    )  # fmt: skip


def _columns(figure: Figure) -> Iterator[tuple[float, ...]]:
    for values in zip(*(series.values for series in figure.series), strict=True):
        yield tuple(value or 0 for value in values)


def _round_up(highest: float) -> float:
    """The end of the axis: 4, 8, 20, 40, 80, 200 … so that its quarters are plain numbers."""
    if highest <= GRID:
        return GRID
    size = 10.0 ** math.floor(math.log10(highest / GRID))
    ends = (float(step * size * GRID) for step in (1, 2, 5, 10))
    return next(end for end in ends if end >= highest)


def _x(place: float, columns: int) -> float:
    return LEFT + place * (WIDTH - LEFT - RIGHT) / columns


def _y(value: float, top: float) -> float:
    return TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM)


def _grid(top: float, is_rate: bool) -> SafeString:
    values = [top * step / GRID for step in range(GRID + 1)]
    return format_html_join(
        "",
        '<line class="vk-grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="vk-axis vk-end" x="{}" y="{}">{}</text>',
        (
            (LEFT, WIDTH - RIGHT, y, y, LEFT - 5, y + 4, f"{value:.0f} %" if is_rate else _short(value))
            for value in values
            for y in [round(_y(value, top), 1)]
        ),
    )


def _short(value: float) -> str:
    for size, unit in ((1_000_000, "M"), (1000, "k")):
        if value >= size:
            return f"{number_format(f'{value / size:g}')}{unit}"
    return number_format(f"{value:g}")


def _names(figure: Figure) -> SafeString:
    """So many names of columns as have room, from the last one back; none sticks out on the right."""
    number = len(figure.columns)
    longest = max(map(len, figure.columns)) * LETTER
    every = max(1, math.ceil((longest + 3 * LETTER) * number / (WIDTH - LEFT - RIGHT)))
    return format_html_join(
        "",
        '<text class="vk-axis vk-mid" x="{}" y="{}">{}</text>',
        (
            (round(min(_x(place + 0.5, number), WIDTH - len(name) * LETTER / 2), 1), HEIGHT - 7, name)
            for place, name in enumerate(figure.columns)
            if (number - 1 - place) % every == 0 and _x(place + 0.5, number) > longest / 2
        ),
    )


def _bars(figure: Figure, top: float) -> SafeString:
    number = len(figure.columns)
    width = round((WIDTH - LEFT - RIGHT) / number * 0.78, 1)
    drawn = []
    for place, values in enumerate(_columns(figure)):
        ground = 0.0
        for series, value in zip(figure.series, values, strict=True):
            if value:
                y, below = _y(ground + value, top), _y(ground, top)
                told = f"{figure.columns[place]}: {series.words[place]} {series.name}"
                x = round(_x(place + 0.11, number), 1)
                drawn.append((series.tone, x, round(y, 1), width, round(below - y, 1), told))
                ground += value
    return format_html_join(
        "", '<rect class="vk-tone-{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>', drawn
    )


def _lines(figure: Figure, top: float) -> SafeString:
    number = len(figure.columns)
    return format_html_join("", "{}", ((_line(figure, series, number, top),) for series in figure.series))


def _line(figure: Figure, series: Series, number: int, top: float) -> SafeString:
    points = [
        (round(_x(place + 0.5, number), 1), round(_y(value, top), 1), place)
        for place, value in enumerate(series.values)
        if value is not None
    ]
    path = " ".join(f"{x},{y}" for x, y, _place in points)
    dots = format_html_join(
        "",
        '<circle cx="{}" cy="{}" r="3.5"><title>{}: {} {}</title></circle>',
        ((x, y, figure.columns[place], series.words[place], series.name) for x, y, place in points),
    )
    return format_html('<g class="vk-line-{0}"><polyline points="{1}"/>{2}</g>', series.tone, path, dots)


def table(figure: Figure) -> Sequence[tuple[str, Sequence[str]]]:
    """The rows of the same numbers: the name of the column, and a word for each series."""
    return [
        (name, [series.words[place] for series in figure.series]) for place, name in enumerate(figure.columns)
    ]
