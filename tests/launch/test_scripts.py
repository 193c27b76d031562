"""The launch scripts: what they would run, on fakes of the tools they call, and the manifest."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cloud import arguments, bash, executable, slice_of

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
JOBS = [*LAUNCH.rglob("*.sh"), *LAUNCH.glob("*.sbatch")]
SCRIPTS = [*JOBS, LAUNCH / "named_files.bash", ROOT / ".ci" / "run"]
FLAG = "--config.roles.generator.train=('sft', 'dpo')"  # what quoting gets wrong


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    beside_python = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shellcheck = shutil.which("shellcheck", path=beside_python)
    if not shellcheck:
        pytest.skip("no shellcheck; pip install -e '.[check]'")
    done = subprocess.run(
        [shellcheck, "--exclude=SC1091", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", JOBS)
def test_scripts_say_what_they_do_and_stop_at_the_first_error(script):
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in text
    assert "--dry_run" in text


def test_a_dry_run_of_a_slice_prints_its_whole_life():
    done = bash("launch/tpu_vm.sh", "--dry_run", "up", "my-job", "--config=configs/gsm8k.py")
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if line.startswith("+ ")]
    for part in ("queued-resources create my-job", "--spot", "tpu-vm scp", "pip"):
        assert any(part in line for line in printed), part
    assert "queued-resources delete my-job" in printed[-1]
    assert "gcloud storage cp --recursive gs://bucket/my-job/report" in done.stdout
    on_demand = bash("launch/tpu_vm.sh", "--dry_run", "create", "my-job", SPOT="false")
    assert "--spot" not in on_demand.stdout


@pytest.mark.parametrize(
    ("line", "environment", "message"),
    [
        (["up"], {}, "usage"),
        (["up", "My_Job"], {}, "usage"),
        (["up", "my-job"], {"ZONE": ""}, "ZONE"),
        (["cook", "my-job"], {}, "no command cook"),
    ],
)
def test_a_wrong_call_is_told(line, environment, message):
    done = bash("launch/tpu_vm.sh", *line, **environment)
    assert done.returncode != 0
    assert message in done.stderr


def started(tmp_path: Path) -> list[str]:
    calls = (tmp_path / "home" / "calls").read_text().splitlines()
    return [line for line in calls if "nohup" in line]


def test_the_job_gets_its_flags_as_they_were_given(tmp_path):
    home = slice_of(tmp_path, ["ACTIVE"] * 500, 0)
    for command in ("run", "watch"):
        done = bash("launch/tpu_vm.sh", command, "my-job", FLAG, path=tmp_path / "bin", **home)
        assert done.returncode == 0, done.stderr
    job = ["-m", "malt_jax.main", FLAG, "--config.workdir=gs://bucket/my-job"]
    assert arguments(tmp_path) == job
    assert (tmp_path / "home" / "malt_jax" / "status").read_text() == "0\n"
    assert len(started(tmp_path)) == 1


def test_a_refused_setting_is_not_tried_again(tmp_path):
    home = slice_of(tmp_path, ["ACTIVE"] * 500, 1)
    bash("launch/tpu_vm.sh", "run", "my-job", path=tmp_path / "bin", **home)
    done = bash("launch/tpu_vm.sh", "watch", "my-job", path=tmp_path / "bin", **home)
    assert done.returncode == 1
    assert "ended with status 1" in done.stdout
    assert len(started(tmp_path)) == 1


def test_a_job_that_died_is_started_again_but_not_for_ever(tmp_path):
    home = slice_of(tmp_path, ["ACTIVE"] * 5000, 134)
    bash("launch/tpu_vm.sh", "run", "my-job", path=tmp_path / "bin", **home)
    done = bash("launch/tpu_vm.sh", "watch", "my-job", path=tmp_path / "bin", **home)
    assert done.returncode == 1
    assert len(started(tmp_path)) == 11


def test_a_slice_that_was_taken_away_is_asked_for_again(tmp_path):
    home = slice_of(tmp_path, ["SUSPENDED", "WAITING_FOR_RESOURCES", *["ACTIVE"] * 500], 0)
    done = bash("launch/tpu_vm.sh", "watch", "my-job", FLAG, path=tmp_path / "bin", **home)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "home" / "calls").read_text()
    assert calls.index("delete my-job") < calls.index("create my-job") < calls.index("nohup")


def test_a_slice_that_is_gone_is_made_again_and_one_that_does_not_answer_is_not(tmp_path):
    home = slice_of(tmp_path, ["OFFLINE", "OFFLINE", "NOT_FOUND", *["ACTIVE"] * 500], 0)
    done = bash("launch/tpu_vm.sh", "watch", "my-job", FLAG, path=tmp_path / "bin", **home)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "home" / "calls").read_text()
    assert calls.count("queued-resources create") == 1
    assert "queued-resources delete" not in calls
    assert "MISSING" in done.stdout


def test_slurm_runs_one_process_a_node_with_all_its_gpus(tmp_path):
    done = bash("launch/slurm.sbatch", "--dry_run", FLAG)
    assert "+ srun --kill-on-bad-exit=1" in done.stdout
    srun = 'echo "$JAX_LOCAL_DEVICE_IDS" "${@: -1}"; exit 134'
    executable(tmp_path / "bin" / "srun", f"#!/usr/bin/env bash\n{srun}\n")
    executable(tmp_path / "bin" / "scontrol", '#!/usr/bin/env bash\necho requeued "$@"\n')
    slurm = {"SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0"}
    done = bash("launch/slurm.sbatch", FLAG, path=tmp_path / "bin", **slurm)
    assert f"0,1,2,3 {FLAG}" in done.stdout
    assert "requeued requeue 7" in done.stdout
    assert done.returncode == 134
    again = bash(
        "launch/slurm.sbatch", path=tmp_path / "bin", **slurm | {"SLURM_RESTART_COUNT": "3"}
    )
    assert "requeued" not in again.stdout


def manifest(**settings: str) -> dict:
    done = bash("launch/gke/run.sh", "--dry_run", "run", "my-job", FLAG, **settings)
    assert done.returncode == 0, done.stderr
    text, _, _ = done.stdout.partition("\n+ kubectl")
    assert not re.search(r"\$\{\w+\}", text), "a name was not filled in"
    return yaml.safe_load(text)


def test_the_jobset_has_what_gke_asks_for():
    """The fields that JobSet's and Job's schemas require, and those by which GKE finds a slice."""
    jobset = manifest(HOSTS="4", CHIPS="4", TOPOLOGY="4x4")
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert jobset["kind"] == "JobSet"
    assert jobset["metadata"]["name"] == "my-job"
    (job,) = jobset["spec"]["replicatedJobs"]
    assert {"name", "replicas", "template"} <= job.keys()
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == 4
    assert spec["completionMode"] == "Indexed"
    assert spec["backoffLimit"] == 0, "a pod that fails must fail the job, or no restart follows"
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "podFailurePolicy requires it"
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    (container,) = pod["containers"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert container["args"] == [FLAG, "--config.workdir=gs://bucket/my-job"]
    assert container["image"] == "host/image"
    limits = container["resources"]
    assert limits["limits"] == limits["requests"] == {"google.com/tpu": 4}


def test_the_image_holds_what_the_dockerfile_copies():
    text = (LAUNCH / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
            assert f"!{name}" in ignored, name
    assert 'ENTRYPOINT ["python", "-m", "malt_jax.main"]' in text
