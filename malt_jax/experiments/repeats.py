"""The whole run again: other test sets, other seeds."""

from pathlib import Path

from malt_jax import tasks
from malt_jax.experiments import variant
from malt_jax.experiments.variant import EVALUATED, Config, Variant


def transfer(main: Config) -> list[Variant]:
    """The trained team on the test sets of `config.data.exclude`; ValueError if there are none."""
    places = main["data"]["exclude"]
    if not places:
        raise ValueError("config.suite: transfer needs test sets in config.data.exclude, TASK:PATH")
    suite = []
    for place in places:
        task, path = tasks.place(place)
        name = "_".join(dict.fromkeys([tasks.get(task).name.lower(), Path(path).stem.lower()]))
        values = {
            **variant.kept(main),
            "data.task": task,
            "data.eval": path,
            "data.train": "",
            "data.exclude": (),
            "data.eval_questions": 0,
            "eval.split": "test",
            "eval.equal_compute": True,
        }
        title, rows = f"transfer_{name}", variant.every_row(main, name)
        suite.append(Variant(title, "transfer", name, values, rows, EVALUATED))
    return suite


def seeds(main: Config) -> list[Variant]:
    """The whole run with three other seeds: other questions, samples and adapters."""
    return [
        Variant(
            f"seed_{seed}",
            "seeds",
            f"seed {seed}",
            {"seed": seed},
            variant.every_row(main, f"seed_{seed}"),
            reuses=False,
        )
        for seed in range(main["seed"] + 1, main["seed"] + 4)
    ]
