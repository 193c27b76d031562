"""The report: one HTML page that stands alone, and its figures in Markdown.

The page loads nothing: its Content-Security-Policy admits its own style sheet and its own script,
by hash, and nothing else. What a model wrote travels as JSON and is shown as text.
"""

import base64
import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from malt_jax.report import charts, headline, plots, sentences, svg
from malt_jax.report.forest import KINDS
from malt_jax.report.load import Run, load
from malt_jax.report.trainings import panels
from malt_jax.workdir import storage

_STYLES = ("report.css", "figures.css", "comparison.css", "trees.css", "narrow.css")
_SCRIPTS = ("trees.js", "browse.js")
_COMMAND = "python -m malt_jax.main --config=CONFIG"


def write(workdir: Path) -> Path:
    """Writes `workdir`/report/index.html and report.md from what the earlier stages left.

    Each file is replaced as a whole. A part whose stage has not run is named with the command that
    makes it.

    Returns:
      The path of index.html.

    Raises:
      ValueError: `workdir` does not exist, or a file in it does not follow the contract.
    """
    run = load(workdir)
    context = _context(run, workdir)
    folder = workdir / "report"
    _write(folder / "report.md", _environment(html=False).get_template("report.md").render(context))
    page = _environment(html=True).get_template("index.html").render(context)
    return _write(folder / "index.html", page)


def script_json(value: Any) -> Markup:
    """JSON that may stand in a script element: no character in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text))


def stage_command(command: str, stage: str) -> str:
    """`command` with its `--stage` set to `stage`; "all" runs the whole job and needs no flag."""
    whole = re.sub(r"\s+--stage[= ]\S+", "", command)
    return whole if stage == "all" else f"{whole} --stage={stage}"


def _context(run: Run, workdir: Path) -> dict[str, Any]:
    settings = run.settings
    command = settings.command if settings else f"{_COMMAND} --config.workdir={workdir}"
    order = {role: i for i, role in enumerate(settings.chain if settings else ())}
    style, script = (
        Markup("").join(_page_file(name) for name in names) for names in (_STYLES, _SCRIPTS)
    )
    return {
        "run": run,
        "task": settings.config["data"]["task"] if settings else "",
        "model": "/".join(Path(settings.config["model"]["path"]).parts[-2:]) if settings else "",
        "shuffled": bool(settings and settings.config["credit"]["shuffle_rewards"]),
        "threshold": _threshold(run),
        "positive": settings.positive if settings else "",
        "trainings": sorted(run.trainings, key=lambda t: order.get(t.role, len(order))),
        "missing": {
            name: (lack, stage_command(lack.command or command, lack.stage))
            for name, lack in run.missing.items()
        },
        "command": stage_command(command, "all"),
        "kinds": KINDS,
        "forests": [
            (name, title, forest)
            for name, title, forest in (
                ("training", _grown_in(run.rounds.chosen if run.rounds else None), run.forest),
                *((f"round-{i}", _grown_in(i), forest) for i, forest in run.forests.items()),
                ("trained", "the trained team on held-out questions", run.transcripts),
            )
            if forest
        ],
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
    }


def _threshold(run: Run) -> float:
    """theta of the training trees that the page shows."""
    if run.rounds:
        return next(r.threshold for r in run.rounds.rounds if r.number == run.rounds.chosen)
    return run.settings.threshold if run.settings else 0.5


def _grown_in(number: int | None) -> str:
    return f"training trees of round {number}" if number else "training trees"


def _page_file(name: str) -> Markup:
    return Markup(resources.files(__name__).joinpath("page", name).read_text(encoding="utf-8"))


def _environment(html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader(__name__, "page"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    modules = {"charts": charts, "headline": headline, "plots": plots, "sentences": sentences}
    environment.globals |= {**modules, "panels": panels, "percent_scale": svg.percent_scale}
    environment.filters |= {
        "pct": headline.pct,
        "points": headline.points,
        "interval": headline.interval,
        "commas": lambda n: f"{n:,.0f}",
        "script_json": script_json,
        "cell": lambda text: re.sub(r"([|\\<>*`])", r"\\\1", " ".join(str(text).split())),
        "fence": lambda text: _fence(str(text)),
    }
    return environment


def _fence(text: str) -> str:
    """`text` as a Markdown code block whose fence is longer than any run of backticks in it."""
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}\n{text}\n{ticks}"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _write(path: Path, text: str) -> Path:
    with storage.written_whole(path) as file:
        file.write(text.encode("utf-8"))
    return path
