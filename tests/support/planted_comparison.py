"""A comparison.json with every figure planted, as a suite of the paper's systems leaves it."""

from typing import Any

from malt_jax.evaluate import stats

N = 562

ROWS = [
    # name, title, group, right of 562, tokens read, tokens generated (a question), paper
    ("sa", "single agent", "systems", 338, 96, 88, 0.8425),
    ("sa_mv", "single agent, vote of 3", "systems", 361, 96, 262, 0.8675),
    ("ma", "untrained team", "systems", 331, 660, 250, 0.8475),
    ("ma_mv", "untrained team, vote of 3", "systems", 366, 1790, 752, 0.87),
    ("star_sa", "STaR single agent", "systems", 346, 96, 84, 0.8175),
    ("star_sa_mv", "STaR single agent, vote of 3", "systems", 368, 96, 251, 0.8475),
    ("star_ma", "STaR team", "systems", 340, 655, 246, 0.80),
    ("star_ma_mv", "STaR team, vote of 3", "systems", 371, 1772, 740, 0.8675),
    ("debate", "debate, 3 agents, 3 rounds", "systems", 362, 3900, 1510, 0.8675),
    ("malt", "MALT, one pass", "systems", 363, 652, 240, 0.835),
    ("malt_mv", "MALT, vote of 3", "systems", 397, 1760, 722, 0.905),
    ("without_g", "generator left untrained", "ablations", 381, 1765, 730, 0.87),
    ("without_v", "verifier left untrained", "ablations", 388, 1770, 728, 0.8575),
    ("without_r", "refiner left untrained", "ablations", 372, 1780, 735, 0.8625),
    ("sft_only", "SFT without DPO", "ablations", 399, 1758, 725, None),
    ("n_2", "branching 2", "sweeps", 380, 1761, 723, None),
    ("n_3", "branching 3", "sweeps", 397, 1760, 722, None),
    ("n_5", "branching 5", "sweeps", 404, 1763, 720, None),
    ("theta_0.3", "threshold 0.3", "sweeps", 385, 1766, 731, None),
    ("theta_0.5", "threshold 0.5", "sweeps", 397, 1760, 722, None),
    ("theta_0.7", "threshold 0.7", "sweeps", 393, 1764, 719, None),
    ("temperature_0.5", "temperature 0.5", "sweeps", 390, 1762, 730, None),
    ("symbolic", "MALT on GSM-Symbolic-P1", "transfer", 301, 1980, 840, 0.8475),
    ("symbolic_sa", "single agent on the same", "transfer", 262, 130, 104, 0.7175),
]
COMMAND = "python -m malt_jax.main --config=configs/paper_table1.py --config.workdir=runs/table1"
BASES = {"sa", "sa_mv", "ma", "ma_mv", "malt", "malt_mv"}
SAME = {"malt_mv", "n_3", "theta_0.5"}  # the main system, under its own and other names
RIGHT = {name: right for name, _, _, right, *_ in ROWS}


def row(name: str) -> dict[str, Any]:
    """The planted row of `name`; differences to malt_mv have intervals of 3.5 points either way."""
    title, group, right, read, generated, paper = next(r[1:] for r in ROWS if r[0] == name)
    difference = (RIGHT["malt_mv"] - right) / N
    against = {
        "difference": difference,
        "ci95": [difference - 0.035, difference + 0.035],
        "n": N,
        "p_mcnemar": 0.01,
    }
    return {
        "name": name,
        "title": title,
        "group": group,
        "variant": "" if name in BASES else name,
        "n": N,
        "correct": right,
        "accuracy": right / N,
        "ci95": list(stats.wilson(right, N)),
        "unparseable": 7,
        "truncated": 4,
        "unknown": 2,
        "tokens": {"prompt": read * N, "completion": generated * N},
        "paper": paper,
        "likeness": {"mean": right / N + 0.002, "sd": 0.031} if group == "systems" else None,
        "against_main": None if name in SAME or group == "transfer" else against,
    }


def comparison() -> dict[str, Any]:
    """A suite in which MALT wins, and plain voting comes near it at equal compute."""
    curve = [(1, 338), (2, 341), (3, 361), (5, 372), (9, 379), (15, 384), (27, 386), (45, 387)]
    return {
        "suite": "paper_table1",
        "main": "malt_mv",
        "n": N,
        "k": 3,
        "rows": [row(name) for name, *_ in ROWS],
        "voting": [
            {
                "k": k,
                "accuracy": right / N,
                "ci95": list(stats.wilson(right, N)),
                "tokens": 96.0 + 88 * k,
            }
            for k, right in curve
        ],
        "equal_compute": {
            "system": "malt_mv",
            "tokens": 2482.0,
            "k": 28,
            "voting": {"accuracy": 0.687, "ci95": [0.648, 0.724], "tokens": 2560.0},
            "difference": 0.019,
            "ci95": [-0.012, 0.050],
        },
        "at_k": {
            name: [
                {"k": k, "pass": 1 - (1 - p) * 0.8 ** (k - 1), "majority": p + 0.06 * (1 - 1 / k)}
                for k in (1, 2, 3, 5, 9)
            ]
            for name, p in (("sa", 0.6), ("malt", 0.645))
        },
        "flows": {
            name: dict(
                zip(
                    ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong"),
                    counts,
                    strict=True,
                )
            )
            for name, counts in {
                "ma": (101, 118, 879, 588),
                "star_ma": (95, 92, 925, 574),
                "malt": (158, 61, 958, 509),
            }.items()
        },
        "format": [
            {
                "from": "sa_mv",
                "to": "malt_mv",
                "gain": 0.064,
                "became_parseable": 0.012,
                "became_right": 0.087,
                "lost": 0.035,
            },
            {
                "from": "ma_mv",
                "to": "malt_mv",
                "gain": 0.055,
                "became_parseable": 0.021,
                "became_right": 0.064,
                "lost": 0.03,
            },
        ],
        "critiques": {
            "own": {"accuracy": 0.646, "ci95": [0.605, 0.684]},
            "other": {"accuracy": 0.601, "ci95": [0.56, 0.641]},
            "none": {"accuracy": 0.612, "ci95": [0.571, 0.652]},
        },
        "paper": {"arxiv": "2412.01928", "model": "Llama-3.1-8B-Instruct", "protocol": "4 x 100"},
        "seeds": {
            "runs": 4,
            "differences": {
                "sa": {"difference": 0.098, "ci95": [0.061, 0.133]},
                "ma_mv": {"difference": 0.03, "ci95": [-0.014, 0.071]},
            },
        },
        "power": {
            "against": "sa_mv",
            "discordant": 0.11,
            "difference": 0.019,
            "questions": 2390,
            "have": 562,
        },
        "commands": {
            name: f"{COMMAND} --config.variant={name}"
            for name in (*(r[0] for r in ROWS if r[0] not in BASES), "one_role")
        },
    }
