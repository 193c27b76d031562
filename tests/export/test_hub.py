"""What would go to the hub: the files, and what the library is told."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import yaml
from exports import drawn, recipe

from malt_jax import export
from malt_jax.export import hub

BASE = "org/small-base"


@pytest.fixture
def trained(base, model, tmp_path) -> tuple[Path, Any]:
    """The exports of a team whose base is on the hub, and its settings."""
    settings = recipe(base, data__train=str(tmp_path / "secret" / "train.jsonl"))
    published = dataclasses.replace(model, source=BASE)
    for role in settings.chain:
        export.write(tmp_path, settings, published, role, drawn(model))
    return tmp_path, settings


def test_a_repository_has_each_roles_adapter_and_a_card_of_all(trained):
    workdir, settings = trained
    files = hub.contents(workdir, settings)
    expected = {"adapter_config.json", "adapter_model.safetensors", "malt.json", "README.md"}
    roles = ("generator", "verifier", "refiner")
    assert set(files) == {"README.md", *(f"{role}/{name}" for role in roles for name in expected)}
    weights = workdir / "export" / "refiner" / "adapter_model.safetensors"
    assert files["refiner/adapter_model.safetensors"] == weights.read_bytes()
    fields = json.loads(files["verifier/adapter_config.json"])
    assert fields["base_model_name_or_path"] == BASE
    _, front, text = files["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(front)["base_model"] == BASE
    for role in roles:
        assert f"subfolder='{role}'" in text


def test_no_path_of_this_machine_goes_out(trained):
    workdir, settings = trained
    for name, content in hub.contents(workdir, settings).items():
        assert str(workdir).encode() not in content, name
    assert b"train.jsonl" in hub.contents(workdir, settings)["refiner/malt.json"]


def test_peft_loads_the_roles_from_their_folders(base, model, trained, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    for path, content in hub.contents(*trained).items():
        file = tmp_path / "repository" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(base)
    place = str(tmp_path / "repository")
    team = peft.PeftModel.from_pretrained(loaded, place, "generator", subfolder="generator")
    team.load_adapter(place, "verifier", subfolder="verifier")
    assert set(team.peft_config) == {"generator", "verifier"}


def test_the_library_is_asked_for_a_private_repository(trained, monkeypatch):
    calls: list[tuple[str, Any]] = []

    class Hub:
        def create_repo(self, repository: str, **options: Any) -> None:
            calls.append((repository, options))

        def create_commit(self, repository: str, operations: list, **options: Any) -> Any:
            calls.append((repository, {op.path_in_repo: op.path_or_fileobj for op in operations}))
            return SimpleNamespace(commit_url="https://hub/commit")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    files = hub.contents(*trained)
    assert hub.upload(files, "me/team") == "https://hub/commit"
    assert calls == [("me/team", {"private": True, "exist_ok": True}), ("me/team", files)]


def test_a_name_that_is_none_is_told_by_its_flag():
    with pytest.raises(ValueError, match="--repository=not a name"):
        hub.upload({}, "not a name")


def test_a_base_that_others_cannot_load_is_refused(base, model, tmp_path):
    settings = recipe(base)
    for role in settings.chain:
        export.write(tmp_path, settings, model, role, drawn(model))
    with pytest.raises(ValueError, match=r"export/generator: .* upload that base"):
        hub.contents(tmp_path, settings)


def test_a_role_that_is_not_trained_yet_is_named(base, tmp_path):
    with pytest.raises(ValueError, match=r"export/generator: not there; run --stage=train"):
        hub.contents(tmp_path, recipe(base))
