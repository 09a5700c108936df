"""What became of each layer, on a run's page: kept against dense widths, the error before and after the refit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketprune.reporting.charts import change, share_bar
from pocketprune.reporting.markup import escape, section
from pocketprune.reporting.records import Record, number
from pocketprune.reporting.scales import Scale

SMALLEST = 1e-5  # errors below it are nothing, and not drawn


def layer_section(run: Record) -> str:
    """Return the layers, a row each; nothing where the report has none."""
    found = run.report.get("layers")
    layers = [layer for layer in found if isinstance(layer, Mapping)] if isinstance(found, list) else []
    if not layers:
        return ""
    errors = {e for layer in layers for e in _errors(layer) if e is not None and e > SMALLEST}
    scale = Scale(min(errors), max(errors), 8, 192, log=True) if len(errors) > 1 else None
    widest = max(number(layer.get("channels")) or 0 for layer in layers)
    body = "".join(_row(layer, widest, scale) for layer in layers)
    heads = ["channels kept of dense", *(["error before and after the refit"] if scale else [])]
    head = '<th scope="col">layer</th>' + "".join(f'<th scope="col" colspan="2">{title}</th>' for title in heads)
    text = "Coloured: the channels that stay."
    if scale:
        text += (
            " Ring: the error of the layer's output on held-out images with its old weights, as a share of the "
            "output's variance; dot: with the refitted ones (logarithmic, to the right is worse)."
        )
    table = f'<table class="layers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return section("Layer by layer", text, table)


def _errors(layer: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return number(layer.get("error_before")), number(layer.get("error_after"))


def _drawable(error: float | None) -> float | None:
    return error if error is not None and error > SMALLEST else None


def _row(layer: Mapping[str, Any], widest: float, scale: Scale | None) -> str:
    channels, kept = number(layer.get("channels")) or 0, number(layer.get("kept")) or 0
    note = f"<small>{escape(str(layer['note']))}</small>" if layer.get("note") else ""
    cells = [
        f'<td class="what">{escape(str(layer.get("name", "")))}{note}</td>',
        f'<td class="bar">{share_bar(kept, channels, widest)}</td>',
        f"<td>{kept:g} / {channels:g}</td>",
    ]
    if scale is not None:
        before, after = _errors(layer)
        texts = ["?" if error is None else f"{error:.4f}" for error in (before, after)]
        drawn = change(_drawable(before), _drawable(after), scale)
        numbers = " → ".join(texts) if before is not None or after is not None else ""
        cells += [f'<td class="dots">{drawn}</td>', f'<td class="errors">{numbers}</td>']
    return f"<tr>{''.join(cells)}</tr>"
