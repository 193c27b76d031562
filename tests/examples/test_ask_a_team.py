"""The example that asks what a run left."""

import importlib.util
import json
from pathlib import Path

from recipes import change, good
from whole import TINY

from malt_jax.recipe import parse

ROOT = Path(__file__).parents[2]


def test_it_shows_the_roles_a_vote_and_what_an_edited_critique_does(tmp_path, capsys):
    config = change(change(good(), "model.path", str(TINY)), "sample.rows", 16)
    for role in config["chain"]:
        config["roles"][role]["train"] = ()  # as it is: nothing is trained here
    record = {"config": parse(config).as_config()}
    (tmp_path / "config.json").write_text(json.dumps(record))
    file = ROOT / "examples" / "ask_a_team.py"
    spec = importlib.util.spec_from_file_location("ask_a_team", file)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(str(tmp_path), "7+8-2+9-4")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[1:4]] == list(config["chain"])
    assert lines[-3].startswith("five passes: ")
    assert lines[-1].startswith("told that it is wrong, the last role writes: ")
