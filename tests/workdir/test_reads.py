"""How often the test split was read: an evaluation counts once, however often it was broken off."""

from pathlib import Path

from malt_jax.workdir import reads
from malt_jax.workdir.storage import write_json

FREE = ("seed", "workdir", "trees")


def config(**changes) -> dict:
    role = {"adapter": changes.pop("adapter", "")}
    given = {"seed": 0, "workdir": "w", "trees": "", "model": {"path": "m"}, "rate": 1.0}
    return given | changes | {"roles": {"generator": role}}


def read(workdir: Path, *, seed: int = 0, **changes) -> dict:
    hashed = reads.configuration(workdir, config(seed=seed, **changes), "sha256:b", FREE)
    return {"configuration": hashed, "seed": seed, "test": "gsm8k:"}


def sample(workdir: Path, name: str) -> None:
    write_json(workdir / "eval" / "base" / f"{name}.parquet", {})


def evaluated(workdir: Path, settings: dict, name: str) -> None:
    before = reads.stored(workdir)
    reads.begin(workdir, settings)
    sample(workdir, name)
    reads.end(workdir, settings, before)


def counted(workdir: Path) -> tuple[int, int]:
    return reads.counts(reads.recorded(workdir), "gsm8k:")


def test_an_evaluation_that_goes_on_counts_once(tmp_path):
    settings = read(tmp_path)
    reads.begin(tmp_path, settings)
    assert counted(tmp_path) == (1, 1), "what was begun may have been looked at"
    evaluated(tmp_path, settings, "a")
    assert counted(tmp_path) == (1, 1)
    reads.begin(tmp_path, settings)
    reads.end(tmp_path, settings, reads.stored(tmp_path))
    assert counted(tmp_path) == (1, 1), "nothing was drawn: the same figures again"


def test_more_samples_of_the_same_are_another_read(tmp_path):
    evaluated(tmp_path, read(tmp_path), "a")
    evaluated(tmp_path, read(tmp_path), "b")
    assert counted(tmp_path) == (2, 1)


def test_a_configuration_is_what_shapes_the_result_but_for_the_seed(tmp_path):
    evaluated(tmp_path, read(tmp_path), "a")
    evaluated(tmp_path, read(tmp_path, seed=1, trees="other"), "b")
    assert counted(tmp_path) == (2, 1)
    evaluated(tmp_path, read(tmp_path, rate=2.0), "c")
    assert counted(tmp_path) == (3, 2)
    assert reads.counts(reads.recorded(tmp_path), "math:") == (0, 0)


def test_a_suite_has_one_record_and_roles_of_other_seeds_are_the_same(tmp_path):
    main, other = tmp_path / "main", tmp_path / "main" / "variants" / "seed_1"
    for seed, run in enumerate((main, other)):
        variant, adapter = run / "variants" / "alone", run / "export" / "generator"
        write_json(adapter / "weights.json", {"of": seed})
        evaluated(variant, read(variant, seed=seed, adapter=str(adapter)), f"{seed}")
    assert reads.recorded(other) == reads.recorded(main)
    assert counted(main) == (2, 1)
    elsewhere = tmp_path / "elsewhere"
    write_json(elsewhere / "weights.json", {"of": 2})
    variant = main / "variants" / "foreign"
    evaluated(variant, read(variant, adapter=str(elsewhere)), "c")
    assert counted(main) == (3, 2)
    assert not list(tmp_path.rglob("variants/*/test_reads.json"))
