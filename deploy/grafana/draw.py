"""Draws one dashboard's panels with the data of a Prometheus: draw.py DASHBOARD URL PICTURE"""

import json
import sys
import textwrap
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SPAN_SECONDS = 600
STEP_SECONDS = 2
VARIABLES = {"$__rate_interval": "30s", "$job": ".*", "$instance": ".*"}


def ask(url, expression):
    """The series of an expression, each with its labels, times and values."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    now = time.time()
    query = {"query": expression, "start": now - SPAN_SECONDS, "end": now, "step": STEP_SECONDS}
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{urllib.parse.urlencode(query)}") as answer:
        result = json.load(answer)["data"]["result"]
    for series in result:
        points = [(at - now, float(value)) for at, value in series["values"]]
        yield series["metric"], [at for at, _ in points], [value for _, value in points]


def named(legend, labels):
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return legend


def draw_panel(axes, panel, url):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_title(f"{panel['title']} [{unit}]", fontsize=9)
    axes.tick_params(labelsize=7)
    lines = [
        (named(target["legendFormat"], labels), times, values)
        for target in panel["targets"]
        for labels, times, values in ask(url, target["expr"])
    ]
    if not lines:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes)
        return
    if panel["type"] == "stat":
        text = "\n".join(f"{name}: {values[-1]:.6g}" for name, _, values in lines)
        axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    for name, times, values in lines:
        axes.plot(times, values, linewidth=1, label=name)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=5, loc="upper left")


def main(dashboard, url, picture):
    with open(dashboard, encoding="utf-8") as file:
        board = json.load(file)
    panels = board["panels"]
    rows = -(-len(panels) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(16, 3 * rows), squeeze=False)
    flat = [cell for row in axes for cell in row]
    for cell, panel in zip(flat, panels):
        draw_panel(cell, panel, url)
    for cell in flat[len(panels) :]:
        cell.set_axis_off()
    figure.suptitle("\n".join(textwrap.wrap(f"{board['title']}: {board['description']} Seconds before now.", 120)))
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(picture, dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
