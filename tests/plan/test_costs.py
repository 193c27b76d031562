"""Derived operations and bytes against XLA's own count, where no loop runs more than once."""

import jax.numpy as jnp
import pytest
from plans import CONFIG, LORA, OWN, PASS, PROMPT, SIZE, phase

from malt_jax.config.settings import SampleSettings
from malt_jax.plan import costs, programs
from malt_jax.plan.programs import Packed
from malt_jax.runtime import mesh


def counted(lowered) -> dict[str, float]:
    """XLA's count before it optimises, in which the body of a loop stands once."""
    return lowered.cost_analysis()


def test_a_decoding_step():
    device = mesh.make()
    xla = counted(programs.decode(jnp.float32, LORA, device, PASS)(CONFIG))
    cost = costs.decode(CONFIG, jnp.float32, LORA, device, PASS, (PROMPT + OWN) * SIZE)
    assert cost.flops == pytest.approx(xla["flops"], rel=0.05)
    assert cost.bytes < xla["bytes accessed"]


def test_a_prefill_pass():
    """XLA counts device page of all that a tile meets, 64 tokens a query; and of the last layer the
    keys and values, which cost a tenth of a layer here."""
    device, tokens = mesh.make(), programs.prefill_tiles(PASS) * SIZE // 4
    xla = counted(programs.prefill(jnp.float32, LORA, device, PASS)(CONFIG))
    cost = costs.prefill(CONFIG, jnp.float32, LORA, device, PASS, tokens, 64)
    last = 2 * tokens * (2 * 256 * 128 + 3 * 2 * 8 * (256 + 128))
    assert cost.flops + last == pytest.approx(xla["flops"], rel=0.05)
    assert cost.bytes < xla["bytes accessed"]


@pytest.mark.parametrize(("name", "completion"), [("sft", 120), ("dpo", 60)])
def test_an_optimiser_step(name, completion):
    device, trained = mesh.make(), phase(name)
    packed, lengths = Packed(128, 128, 1, 1), (8, completion)
    xla = counted(
        programs.train(jnp.float32, LORA, device, *trained, packed, SampleSettings())(CONFIG)
    )
    cost = costs.train(CONFIG, jnp.float32, LORA, device, *trained, packed, lengths)
    assert cost.flops == pytest.approx(xla["flops"], rel=0.1)
    assert cost.bytes < xla["bytes accessed"]


def test_what_is_computed_again_costs_a_forward_pass_more():
    device, packed, lengths = mesh.make(), Packed(128, 128, 1, 1), (8, 120)
    kept, again = (
        costs.train(CONFIG, jnp.float32, LORA, device, *phase("sft", remat=how), packed, lengths)
        for how in ("keep_products", "keep_inputs")
    )
    assert again.flops - kept.flops == 2 * 128 * costs.body(CONFIG)


def test_a_step_of_policy_gradients_costs_what_one_of_sft_does():
    """The KL to the base included, which is scored once and not in the step."""
    packed, sample = Packed(256, 256, 1, 1), SampleSettings()
    ours, sft = (
        programs.train(jnp.float32, LORA, mesh.make(), *trained, packed, sample)(CONFIG)
        for trained in (phase("rl", kl_weight=1e-3), phase("sft"))
    )
    assert counted(ours)["flops"] < 1.01 * counted(sft)["flops"]
    assert programs.compiled(ours).total < 1.01 * programs.compiled(sft).total
