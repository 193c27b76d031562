"""The best round's adapters as the run's own: what takes whose place, and what a kill leaves."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from recipes import good

from malt_jax import export
from malt_jax.recipe import parse
from malt_jax.stages import chosen_round
from malt_jax.workdir import storage

ROLES = ("generator", "verifier", "refiner")
SETTINGS = parse(good())


def planted(workdir: Path, chosen: int) -> Path:
    """Three rounds with exports of two phases, the third without the first phase's."""
    for number in (1, 2, 3):
        for place in [*ROLES, *(f"sft/{role}" for role in ROLES if number < 3)]:
            directory = workdir / "rounds" / str(number) / "export" / place
            directory.mkdir(parents=True)
            name = f"{number} {place}"
            (directory / "adapter_model.safetensors").write_text(name)
            base = {"base_model_name_or_path": str(directory.parents[len(Path(place).parts)] / "x")}
            (directory / "adapter_config.json").write_text(json.dumps(base))
            record = {"role": Path(place).name, "adapter_hash": name, "results": {"of": number}}
            (directory / "malt.json").write_text(json.dumps(RECORD | record))
    choose(workdir, chosen)
    return workdir


RECORD = {
    **{"chain": list(ROLES), "phases": ["sft"], "merged": False, "base": "m", "base_model": None},
    **{"license": "other", "started_from": None, "answer_hint": "", "versions": {}},
    **{"data": {"questions": 1, "yield": None}, "settings": SETTINGS.as_config()},
}


def choose(workdir: Path, number: int) -> None:
    storage.write_json(workdir / "rounds" / "rounds.json", {"chosen": number, "rounds": []})


def weights(workdir: Path) -> set[str]:
    return {file.read_text() for file in workdir.glob("export/**/*.safetensors")}


@pytest.fixture(autouse=True)
def no_cards(monkeypatch):
    monkeypatch.setattr("malt_jax.export.card.text", lambda record: "")


def answers(workdir: Path) -> dict[str, str]:
    files = [*workdir.glob("eval/**/*.parquet"), *workdir.glob("rounds/*/answers/**/*.parquet")]
    return {file.relative_to(workdir).as_posix(): file.read_text() for file in files}


def answer(workdir: Path, text: str) -> None:
    for name in ("malt/greedy", "base"):
        (workdir / "eval" / name).mkdir(parents=True, exist_ok=True)
        (workdir / "eval" / name / "shard-00000.parquet").write_text(text)


def test_the_chosen_round_is_exported_with_what_its_phases_left(tmp_path):
    workdir = planted(tmp_path, 2)
    chosen_round.promote(workdir, SETTINGS)
    assert weights(workdir) == {f"2 {place}" for role in ROLES for place in (role, f"sft/{role}")}
    assert {export.round_of(workdir, role) for role in ROLES} == {2}
    record = storage.read_json(workdir / "export" / "verifier" / "malt.json")
    assert record["results"] is None, "those of the development split are no test results"


def test_answers_go_with_the_team_that_gave_them_and_come_back(tmp_path):
    workdir = planted(tmp_path, 1)
    chosen_round.promote(workdir, SETTINGS)
    answer(workdir, "by round 1")
    choose(workdir, 3)
    chosen_round.promote(workdir, SETTINGS)
    kept = {
        "eval/base/shard-00000.parquet": "by round 1",
        "rounds/1/answers/malt/greedy/shard-00000.parquet": "by round 1",
    }
    assert answers(workdir) == kept
    assert weights(workdir) == {f"3 {role}" for role in ROLES}, "what no phase of it left is gone"
    choose(workdir, 1)
    chosen_round.promote(workdir, SETTINGS)
    assert answers(workdir)["eval/malt/greedy/shard-00000.parquet"] == "by round 1"


@pytest.mark.parametrize("after", range(1, 12))
def test_killed_after_any_write_it_goes_on_to_the_same_end(tmp_path, monkeypatch, after):
    def changed(name: str) -> Path:
        workdir = planted(tmp_path / name, 1)
        chosen_round.promote(workdir, SETTINGS)
        answer(workdir, "by round 1")
        choose(workdir, 2)
        return workdir

    whole, killed = changed("whole"), changed("killed")
    chosen_round.promote(whole, SETTINGS)
    left = after
    with monkeypatch.context() as patch:

        def dying(function):
            def run(*arguments):
                nonlocal left
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
                return function(*arguments)

            return run

        for module, name in ((export, "copied"), (storage, "remove"), (storage, "files")):
            patch.setattr(module, name, dying(getattr(module, name)))
        with suppress(KeyboardInterrupt):
            chosen_round.promote(killed, SETTINGS)
    chosen_round.promote(killed, SETTINGS)
    assert (weights(killed), answers(killed)) == (weights(whole), answers(whole))
    assert {export.round_of(killed, role) for role in ROLES} == {2}
    shutil.rmtree(tmp_path / "killed")


def test_a_gguf_base_is_looked_for_in_the_runs_own_export(tmp_path):
    workdir = planted(tmp_path, 1)
    config = workdir / "rounds" / "1" / "export" / "refiner" / "adapter_config.json"
    base = str(workdir / "rounds" / "1" / "export" / "base")
    config.write_text(json.dumps({"base_model_name_or_path": base}))
    chosen_round.promote(workdir, SETTINGS)
    copied = storage.read_json(workdir / "export" / "refiner" / "adapter_config.json")
    assert copied["base_model_name_or_path"] == str(workdir / "export" / "base")
