"""The figures of an optimiser step as they are logged."""

from collections.abc import Callable

from jax.sharding import Mesh

from malt_jax.config.phase import PhaseSettings
from malt_jax.learn import flops, optim
from malt_jax.learn.packing import Examples, Plan
from malt_jax.models import Model
from malt_jax.runtime import peaks

Values = dict[str, float]


def step_figures(
    settings: PhaseSettings, order: Plan, examples: Examples, model: Model, mesh: Mesh
) -> Callable[[int, Values, float, int], Values]:
    """A function from a step, its metrics, its seconds and how many steps before it were not finite
    to the row that is logged.

    `tokens` are prompts and completions, a prompt that completions share counted once; `padding`
    is the share of the rows' places that hold none; `flops_per_second` and `peak_share`, its share
    of what the devices could do, are of `flops.training_flops`.
    """
    rate = optim.schedule(settings.learning_rate, len(order), settings.warmup)
    most = peaks.peak(list(mesh.devices.flat), model.params["embed"].dtype)
    places = order.order.shape[1] * order.order.shape[2] * order.length

    def row(step: int, values: Values, seconds: float, lost: int) -> Values:
        present = order.present(step - 1)
        work = flops.training_flops(
            model.config, examples.prompts[present], examples.completions[present]
        )
        tokens = values["computed"]
        figures = {name: value for name, value in values.items() if name != "computed"} | {
            "step": step,
            # Of a step that is not finite the optimiser, and so its schedule, knows nothing.
            "lr": float(rate(step - 1 - lost)),
            "nonfinite": lost + (not values["finite"]),
            "tokens": tokens,
            "padding": 1 - tokens / places,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "flops_per_second": work / seconds,
        }
        return figures | ({} if most is None else {"peak_share": work / seconds / most})

    return row
