"""A job gets the flags that were given, whatever stands in them, and the files that they name."""

import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from cloud import ROOT, arguments, bash, executable, slice_of

ODD = [
    "--config.roles.generator.prompt=Löse:\n\t{question}\n\n'so' oder \"so\"\n",
    "--config.data.final=it's",
    "--config.eval.debate.other=\x85a\u2028b\u2029c\ufeff\x7f\x1b😀",
    "--config.wandb=$HOME `id` $(id) $$(id) $$ $ !x ${NAME} $(HOME",
    "--config.roles.generator.train=('sft', 'dpo')",
    "--config.data.eval=C:\\new\\\\x  y \\",
    "--config.lora.targets=*",
    "-# & | ; < > #",
    "",
]
WORKDIR = "--config.workdir=gs://bucket/my-job"


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_workers_of_a_slice_get_flags_as_they_were_given(tmp_path, shell):
    home = slice_of(tmp_path, ["ACTIVE"] * 9, 0, shell)
    done = bash("launch/tpu_vm.sh", "run", "my-job", *ODD, path=tmp_path / "bin", **home)
    assert done.returncode == 0, done.stderr
    bash("launch/tpu_vm.sh", "watch", "my-job", path=tmp_path / "bin", **home)  # until it has ended
    assert arguments(tmp_path) == ["-m", "malt_jax.main", *ODD, WORKDIR]


def as_kubernetes_reads(argument: str) -> str:
    """An argument of a container: $$ is $, and $(NAME) what the variable of that name holds."""
    held = re.compile(r"\$\$|\$\(([^)]*)\)")
    return held.sub(lambda match: "$" if match[1] is None else f"<{match[1]}>", argument)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_pod_gets_flags_as_they_were_given(tmp_path, locale):
    executable(tmp_path / "kubectl", '#!/usr/bin/env bash\n[[ $1 != apply ]] || cat > "$MANIFEST"')
    manifest = tmp_path / "manifest.yaml"
    setting = {"MANIFEST": str(manifest), "LC_ALL": locale}
    done = bash("launch/gke/run.sh", "run", "my-job", *ODD, path=tmp_path, **setting)
    assert done.returncode == 0, done.stderr
    (job,) = yaml.safe_load(manifest.read_text())["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    given = [as_kubernetes_reads(argument) for argument in container["args"]]
    assert given == [*ODD, WORKDIR]
    line = shlex.join(["printf", "%s\\0", *given])
    echoed = subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout
    assert echoed.decode().split("\0")[:-1] == [*ODD, WORKDIR]


NOTES = '#!/usr/bin/env bash\nprintf \'%s\\0\' "$@" > "$ARGUMENTS"\n'


def test_a_node_of_slurm_gets_flags_as_they_were_given(tmp_path):
    executable(tmp_path / "srun", NOTES)
    written = tmp_path / "arguments"
    done = bash("launch/slurm.sbatch", *ODD, path=tmp_path, ARGUMENTS=str(written))
    assert done.returncode == 0, done.stderr
    assert written.read_text().split("\0")[:-1][-len(ODD) :] == ODD


def test_a_run_on_this_machine_gets_flags_as_they_were_given(tmp_path):
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "local.sh").write_bytes((ROOT / "launch" / "local.sh").read_bytes())
    for tool in ("pip", "python"):
        executable(tmp_path / ".venv" / "bin" / tool, NOTES)
    written = tmp_path / "arguments"
    done = bash("launch/local.sh", *ODD, at=tmp_path, ARGUMENTS=str(written))
    assert done.returncode == 0, done.stderr
    assert written.read_text().split("\0")[:-1][-len(ODD) :] == ODD


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout with the launch scripts and a recipe, committed."""
    at = tmp_path / "checkout"
    for file in (ROOT / "launch").rglob("*"):
        if file.is_file():
            target = at / file.relative_to(ROOT)
            executable(target, file.read_text())
    (at / "configs").mkdir()
    (at / "configs" / "known.py").write_text("known\n")
    (at / ".gitignore").write_text("data/\n")
    git(at, "init", "-q")
    git(at, "add", ".")
    git(at, "commit", "-q", "-m", "scripts")
    return at


def git(at: Path, *line: str) -> None:
    user = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *user, *line], cwd=at, check=True, timeout=60)


def test_what_is_not_committed_is_told_and_what_flags_name_is_carried(checkout, tmp_path):
    home = slice_of(tmp_path, ["ACTIVE"] * 9, 0)
    (checkout / "configs" / "mine.py").write_text("mine\n")
    (checkout / "data" / "it's").mkdir(parents=True)
    (checkout / "data" / "it's" / "x.jsonl").write_text("{}\n")
    told = bash("launch/tpu_vm.sh", "--dry_run", "setup", "my-job", at=checkout)
    assert "not committed" in told.stderr
    assert "?? configs/mine.py" in told.stderr
    flags = ["--config=configs/mine.py", "--config.data.exclude=('gsm8k:data/it\\'s/x.jsonl',)"]
    flags += ["--config.data.train=data/it's", "--config", "configs/known.py"]
    tool = {"path": tmp_path / "bin", "at": checkout}
    done = bash("launch/tpu_vm.sh", "run", "my-job", *flags, **tool, **home)
    assert done.returncode == 0, done.stderr
    worker = tmp_path / "home" / "malt_jax"
    assert (worker / "configs" / "mine.py").read_text() == "mine\n"
    assert (worker / "data" / "it's" / "x.jsonl").read_text() == "{}\n"
    assert not (worker / "configs" / "known.py").exists(), "it goes with the commit"


@pytest.mark.parametrize("spelling", ["{file}", "{up}", "~/x.jsonl", "('gsm8k:{file}',)"])
def test_a_file_outside_of_the_checkout_is_refused_before_a_slice_is_asked_for(
    checkout, tmp_path, spelling
):
    home = slice_of(tmp_path, ["ACTIVE"] * 9, 0)
    file = tmp_path / "home" / "x.jsonl"
    file.write_text("{}\n")
    flag = "--config.data.train=" + spelling.format(file=file, up="../home/x.jsonl")
    done = bash(
        "launch/tpu_vm.sh", "up", "my-job", flag, at=checkout, path=tmp_path / "bin", **home
    )
    assert done.returncode == 2
    assert "x.jsonl: only this machine has it; copy it into the checkout" in done.stderr
    assert not (tmp_path / "home" / "calls").exists()
    pod = bash("launch/gke/run.sh", "--dry_run", "run", "my-job", flag, at=checkout, **home)
    assert pod.returncode == 2
    assert "x.jsonl: only this machine has it; copy it into configs/" in pod.stderr


def test_a_pod_has_the_recipes_of_the_image(checkout):
    flags = ["--config=configs/known.py", "--config.data.task=configs/known.py:TASK"]
    done = bash("launch/gke/run.sh", "--dry_run", "run", "my-job", *flags, at=checkout)
    assert done.returncode == 0, done.stderr


TOKEN = "hf_secret"


def test_the_hubs_token_reaches_the_workers_and_no_command_line(checkout, tmp_path):
    home = slice_of(tmp_path, ["ACTIVE"] * 9, 0)
    tool = {"path": tmp_path / "bin", "at": checkout}
    done = bash("launch/tpu_vm.sh", "setup", "my-job", **tool, **home, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "home" / ".cache" / "huggingface" / "token"
    assert file.read_text() == TOKEN
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    calls = (tmp_path / "home" / "calls").read_text()
    assert TOKEN not in calls + done.stdout + done.stderr
    without = bash("launch/tpu_vm.sh", "setup", "my-job", **tool, **home)
    assert "HF_TOKEN is not set" in without.stderr


def test_the_hubs_token_reaches_the_pods_as_a_secret(tmp_path):
    kubectl = 'echo "$*" >> calls; cat > said-$1'
    executable(tmp_path / "kubectl", f'#!/usr/bin/env bash\ncd "$HOME"; {kubectl}\n')
    done = bash(
        *("launch/gke/run.sh", "run", "my-job"), path=tmp_path, HOME=str(tmp_path), HF_TOKEN=TOKEN
    )
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text()
    assert "create secret generic my-job-hub --from-file=token=/dev/stdin" in calls
    assert TOKEN not in calls + done.stdout + done.stderr
    assert (tmp_path / "said-create").read_text() == TOKEN
    (job,) = yaml.safe_load((tmp_path / "said-apply").read_text())["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    assert variable["name"] == "HF_TOKEN"
    secret = {"name": "my-job-hub", "key": "token", "optional": True}
    assert variable["valueFrom"] == {"secretKeyRef": secret}
    without = bash("launch/gke/run.sh", "--dry_run", "run", "my-job")
    assert "HF_TOKEN is not set" in without.stderr
