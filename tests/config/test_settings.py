"""Every config parses, and what no run can do is refused by the key's name."""

import pytest
from recipes import CONFIGS, ROOT, change, good, load

from malt_jax.recipe import parse
from malt_jax.rollout import roles


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_configs_parse_and_open_with_their_command(path):
    parsed = parse(load(path))
    assert len(roles.chain(parsed)) == len(parsed.chain)
    text = path.read_text()
    assert f"--config=configs/{path.name}" in text
    for promise in ("Time:", "Result:"):
        assert promise in text, f"{path} does not state its expected {promise}"


def test_what_a_warm_start_learned_from_is_passed_over():
    """The runs after it take the same questions in the same order, and begin behind those of its
    first half."""
    names = ("warm", "drafts", "mawps")
    warm, drafts, after = (load(ROOT / "configs" / f"smollm2_{name}.py") for name in names)
    for before, config in ((warm, drafts), (drafts, after)):
        assert config["data"]["skip_questions"] == warm["data"]["train_questions"]
        for key in ("task", "train", "eval", "exclude", "max_chars"):
            assert config["data"][key] == before["data"][key]
        assert config["seed"] == before["seed"]
        assert config["model"]["path"] == f"{before['workdir']}/export/merged/generator"
    shown = {role.name: role.sees for role in roles.chain(parse(after))}
    assert shown == {
        "generator": ("question",),
        "verifier": ("question", "generator"),
        "refiner": ("question", "generator", "verifier"),
    }
    assert after["roles"]["generator"]["prompt"] == warm["roles"]["generator"]["prompt"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sample.temprature", 1.0, r"config.sample.temprature: unknown key; did .*temperature"),
        ("sample.temperature", -1.0, r"config.sample.temperature: must not be negative"),
        ("sample.temperature", "hot", r"config.sample.temperature: 'hot' is not of type float"),
        ("sample.top_p", 0.0, r"config.sample.top_p"),
        ("sample.rows", 1, r"config.sample.rows: too few"),
        ("seed", True, r"config.seed: True is not of type int"),
        ("model.dtype", "float16", r"config.model.dtype: 'float16' is not one of"),
        ("model.path", "", r"config.model.path: empty"),
        ("chain", ("generator", "critic"), r"config.chain: 'critic' is not described"),
        ("chain", ("generator", "generator"), r"config.chain: names a role twice"),
        ("roles.verifier.train", ("dpo",), r"config.roles.verifier.train: dpo needs the sft"),
        ("roles.verifier.branching", 0, r"config.roles.verifier.branching: must be positive"),
        ("eval.debate.agents", 1, r"config.eval.debate.agents: a debate needs two"),
        ("eval.debate.prompt", "{question}", r"config.eval.debate.prompt: does not show"),
        ("data.exclude", ("SVAMP.json",), r"config.data.exclude: 'SVAMP.json' is not of the form"),
        ("credit.threshold", 1.0, r"config.credit.threshold"),
        ("sft.epochs", 0, r"config.sft.epochs: must be positive"),
        ("dpo.beta", 0.0, r"config.dpo.beta: must be positive"),
        ("dpo.loss", "sigmoidal", r"config.dpo.loss: 'sigmoidal' is not one of .*'sigmoid_norm'"),
        ("dpo.label_smoothing", 0.1, r"config.dpo.label_smoothing: only .*'robust' takes it"),
        ("dpo.label_smoothing", 0.5, r"config.dpo.label_smoothing: is the share .*\[0, 0.5\)"),
        ("dpo.rpo_alpha", -1.0, r"config.dpo.rpo_alpha: must not be negative"),
        ("sft.beta", 0.1, r"config.sft.beta: unknown key"),
        ("kto.accumulate", 2, r"config.kto.accumulate: must be 1: .*raise config.kto.batch"),
        ("kto.undesirable", 0.0, r"config.kto.undesirable: must be positive"),
        ("sft.held_out", 1.0, r"config.sft.held_out: is a share of questions"),
        ("sft.eval_every", 0, r"config.sft.eval_every: must be positive"),
        ("sft.patience", -1, r"config.sft.patience: must not be negative"),
        ("sft.max_nonfinite", 0, r"config.sft.max_nonfinite: must be positive"),
        ("eval.votes", 0, r"config.eval.votes: must be positive"),
        ("mesh.tensor", 0, r"config.mesh.tensor: must be positive"),
        ("lora", 16, r"config.lora: 16 is not a group"),
    ],
)  # fmt: skip
def test_impossible_values_are_refused_by_name(key, value, message):
    with pytest.raises(ValueError, match=message):
        parse(change(good(), key, value))


def test_a_missing_key_is_named():
    config = good()
    del config["credit"]["threshold"]
    with pytest.raises(ValueError, match=r"config.credit.threshold: missing"):
        parse(config)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{question} {refiner}", r"config.roles.verifier.prompt: {refiner} is not one of"),
        ("{generator}", r"config.roles.verifier.prompt: does not show the {question}"),
    ],
)
def test_a_role_sees_only_what_came_before(prompt, message):
    parsed = parse(change(good(), "roles.verifier.prompt", prompt))
    with pytest.raises(ValueError, match=message):
        roles.chain(parsed)


def test_braces_that_name_nothing_are_text():
    parsed = parse(change(good(), "roles.generator.prompt", r"{question} \boxed{} {{x}}"))
    assert roles.chain(parsed)[0].sees == ("question",)
