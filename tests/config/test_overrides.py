"""Settings on the command line, and recipes by name: what is right is taken, what is not is told in
a line with the name that was meant."""

import re
import subprocess
import sys

import pytest
from recipes import ROOT, good

from malt_jax import main
from malt_jax.config import files, overrides

NEW_ROLE = {"prompt": "", "branching": 3, "max_new_tokens": 300, "train": ("sft",), "adapter": ""}


def given(*arguments: str) -> dict:
    """The quickstart with these flags."""
    flags, others = overrides.split(arguments)
    assert not others
    return overrides.applied(good(), flags, NEW_ROLE)


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["--config.seed=5"], "seed", 5),
        (["--config.seed", "5"], "seed", 5),
        (["-config.seed=5"], "seed", 5),
        (["--config.seed=5", "--config.seed=6"], "seed", 6),
        (["--config.seed=-3"], "seed", -3),
        (["--config.lora.alpha=3"], "lora.alpha", 3.0),
        (["--config.sft.learning_rate=1e-3"], "sft.learning_rate", 1e-3),
        (["--config.workdir=a=b"], "workdir", "a=b"),
        (["--config.workdir="], "workdir", ""),
        (["--config.roles.verifier.prompt=a\n--b"], "roles.verifier.prompt", "a\n--b"),
        (["--config.eval.critiques"], "eval.critiques", True),
        (["--config.eval.critiques=True"], "eval.critiques", True),
        (["--config.eval.equal_compute=false"], "eval.equal_compute", False),
        (["--noconfig.eval.equal_compute"], "eval.equal_compute", False),
        (["--config.chain=('a', 'b')"], "chain", ("a", "b")),
        (["--config.chain=['a','b']"], "chain", ("a", "b")),
        (["--config.chain=a", "--config.chain=b"], "chain", ("a", "b")),
        (["--config.chain=('a','b')", "--config.chain=('c',)"], "chain", ("c",)),
        (
            ["--config.roles.generator.train=('sft',)", "--config.roles.generator.train=()"],
            "roles.generator.train",
            (),
        ),
        (["--config.roles.verifier.train=()"], "roles.verifier.train", ()),
        (["--config.data.exclude=jsonl:/a/b.jsonl"], "data.exclude", ("jsonl:/a/b.jsonl",)),
    ],
)
def test_a_flag_sets_its_key_and_no_other(arguments, key, value):
    config = given(*arguments)
    expected = good()
    *groups, name = key.split(".")
    place, changed = expected, config
    for group in groups:
        place, changed = place[group], changed[group]
    assert changed[name] == value
    assert type(changed[name]) is type(value)
    place[name] = value
    assert config == expected


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.sft.lr=1", "config.sft.lr: unknown key; did you mean config.sft.learning_rate?"),
        ("--config.sample.temprature=1", "did you mean config.sample.temperature?"),
        ("--config.temperature=1", "did you mean config.sample.temperature?"),
        ("--config.sfy.learning_rate=1", "did you mean config.sft.learning_rate?"),
        ("--config.seed.x=1", "config.seed.x: unknown key; config.seed is no group"),
        ("--config.seed=1.5", "config.seed: '1.5' is not a whole number"),
        ("--config.lora.alpha=high", "config.lora.alpha: 'high' is not a number"),
        ("--config.eval.critiques=maybe", "config.eval.critiques: 'maybe' is neither true nor"),
        ("--config.wandb=None", "config.wandb: 'None' would be a name; for none give --config.w"),
        ("--config.seed=None", "config.seed: 'None' is not a whole number"),
        ("--noconfig.seed", "--noconfig.seed: is no switch"),
        ("--config.seed", "--config.seed: needs a value"),
        ("--config.lora=16", "config.lora: is a group of settings; give one of config.lora.alpha"),
        ("--config.chain=a, b", "config.chain: 'a, b' is no tuple; write --config.chain=\"('a'"),
        ("--config.roles.planner.prompt=x", "name 'planner' in config.chain too"),
        ("--config.roles.verifer.prompt=x", "did you mean config.roles.verifier.prompt?"),
        ("--config.roles.verifier.promt=x", "did you mean config.roles.verifier.prompt?"),
    ],
)
def test_what_is_no_setting_or_no_value_is_told_with_the_one_that_was_meant(argument, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        given(argument)


def test_roles_of_the_users_own_need_no_file():
    """Whether the chain is named before what they are to be told or after it."""
    flags = [
        "--config.roles.planner.prompt=Plan: {question}",
        "--config.roles.planner.branching=2",
        "--config.chain=('planner','generator')",
    ]
    for order in (flags, flags[::-1]):
        config = given(*order)
        prompt = {"prompt": "Plan: {question}", "branching": 2}
        assert config["roles"]["planner"] == NEW_ROLE | prompt
        assert config["roles"]["generator"] == good()["roles"]["generator"]


@pytest.mark.parametrize("recipe", ["quickstart", "configs/quickstart.py", "configs/quickstart"])
def test_a_recipe_has_a_name_wherever_it_is_called_from(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.load(recipe).to_dict() == good()


def test_a_recipe_of_the_users_own_goes_before_one_that_comes_with_the_package(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    text = "from malt_jax.config.files import load\ndef get_config():\n    c = load('math')\n"
    (tmp_path / "quickstart.py").write_text(text + "    c.seed = 7\n    return c\n")
    assert files.load("quickstart.py")["seed"] == 7
    assert files.load("quickstart")["seed"] == 0


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("quikstart", "did you mean quickstart?"),
        ("configs/gsm8.py", "did you mean gsm8k?"),
        ("/there/is/nothing.py", "no such file, nor a recipe of that name; choose from csqa, "),
        ("broken.py", r"broken.py does not import: NameError"),
        ("empty.py", "empty.py has no 'get_config'"),
        ("other.py", "get_config of other.py gave a dict"),
    ],
)
def test_what_is_no_recipe_is_told(recipe, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("a = undefined\n")
    (tmp_path / "empty.py").write_text("a = 1\n")
    (tmp_path / "other.py").write_text("def get_config():\n    return {}\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        files.load(recipe)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--version"], r"malt_jax \d+\.\d+\.\d+"),
        ([], "malt_jax: --config: missing; name a recipe: csqa, .*quickstart.*"),
        (["--config=quikstart"], r"malt_jax: .*did you mean quickstart\?"),
        (["--config=quickstart", "--stag=plan"], r"malt_jax: no flag --stag; did you mean stage\?"),
        (["--config=quickstart", "--config.sft.lr=1"], r"malt_jax: .* config.sft.learning_rate\?"),
        (["--config=quickstart", "extra"], "malt_jax: unexpected argument 'extra'; .*"),
        (["--config=quickstart", "--processes=many"], "malt_jax: argument --processes: .*'many'"),
        (["--config=quickstart", "--compare=x"], "malt_jax: --compare goes with --stage=report"),
        (["--config=quickstart", "--question=1"], "malt_jax: --question goes with --stage=solve"),
        (["--config=quickstart", "--stage=solve", "--votes=-1"], "malt_jax: --votes is a count .*"),
        (["--config=quickstart", "--sample=9"], "malt_jax: --sample goes with --stage=audit, .*"),
        (["--config=quickstart", "--stage=audit", "--sample=-1"], "malt_jax: .* is a count: .*"),
    ],
)
def test_the_door_answers_in_one_line(flags, said, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["malt_jax", *flags])
    status = 0
    try:
        main.main()
    except SystemExit as ended:
        status = ended.code
    spoken = capfd.readouterr()
    text = spoken.out + spoken.err + (status if isinstance(status, str) else "")
    (line,) = text.splitlines()
    assert re.fullmatch(said, line), line
    assert (status == 0) == (flags == ["--version"])
    assert not list(tmp_path.iterdir()), "nothing is written, not even a lock"


@pytest.mark.parametrize(
    ("flags", "said", "status"),
    [
        (["--version"], r"malt_jax \d+\.\d+\.\d+", 0),
        (["--config=quickstart", "extra"], "malt_jax: unexpected argument 'extra'; .*", 2),
        (["--config=quickstart", "--stage=trian"], r"malt_jax: .*'trian'; did you mean train\?", 1),
        (["--config=quickstart", "--config.data.task=gms8k"], "malt_jax: .*no task 'gms8k'.*", 1),
    ],
)
def test_so_does_a_process_of_its_own(flags, said, status, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "malt_jax.main", *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = (done.stdout + done.stderr).splitlines()
    assert re.fullmatch(said, line), line
    assert done.returncode == status
    assert not list(tmp_path.iterdir()), "nothing is written, not even a lock"


def test_help_names_every_flag_and_recipe():
    line = [sys.executable, "-m", "malt_jax.main", "--help"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in ("--stage", "--topology", "--sample", "--compare", "--coordinator", *files.names()):
        assert name in done.stdout
