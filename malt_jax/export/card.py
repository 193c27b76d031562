"""The model card of an exported adapter: Markdown under front matter that the hub accepts, a
function of the record beside it (`malt.json`) and of nothing else."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from malt_jax.learn.phases import PHASES

Record = Mapping[str, Any]
_NOT_OF_THE_RESULT = ("checkpoint_every", "max_nonfinite", "remat")
_ADAPTER = ("A LoRA adapter", "peft.AutoPeftModelForCausalLM.from_pretrained(PATH)")
_MERGED = (
    "A base model with a LoRA adapter merged into its weights, which takes no adapter besides",
    "transformers.AutoModelForCausalLM.from_pretrained(PATH)",
)
FILE = "README.md"
_PAPER = "https://arxiv.org/abs/2412.01928"


def text(record: Record) -> str:
    """The README.md of an export. `record` is what `export` writes as malt.json."""
    parts = [_front_matter(record), _introduction(record), _prompt(record), _data(record)]
    return "\n\n".join([*parts, _training(record), _results(record)]) + "\n"


def of_base(record: Record) -> str:
    """The README.md of a bare base that came from a GGUF file."""
    return (
        f"---\nlibrary_name: transformers\nlicense: {json.dumps(record['license'])}\n---\n\n"
        "# The base of a MALT team, without an adapter\n\n"
        f"The weights of `{record['base']}` (`{record['base_hash']}`) in {record['dtype']}. The "
        "adapters of the roles go on this directory; the merged models beside it hold an adapter "
        "already and take none.\n"
    )


def of_team(records: Sequence[Record]) -> str:
    """The README.md of a repository with the adapters of a team, each in the folder of its role."""
    base, chain = records[0]["base_model"], records[0]["chain"]
    roles = [record["role"] for record in records]
    others = [role for role in chain if role not in roles]
    loading = [
        "import peft, transformers",
        "",
        f"base = transformers.AutoModelForCausalLM.from_pretrained({base!r})",
        f"team = peft.PeftModel.from_pretrained(base, REPOSITORY, {roles[0]!r}, "
        f"subfolder={roles[0]!r})",
        *(f"team.load_adapter(REPOSITORY, {role!r}, subfolder={role!r})" for role in roles[1:]),
        f"team.set_adapter({roles[-1]!r})  # the role that is to write",
    ]
    parts = [
        _front_matter(records[0], ["malt", "lora"]),
        f"# A MALT team on {base}",
        f"LoRA adapters of the chain {' → '.join(chain)}, trained with [MALT]({_PAPER}) by "
        f"malt_jax {records[0]['versions']['malt-jax']}: answers at the leaves of trees of samples "
        "are graded, and each role learns from what made the team right. The folder of a role has "
        "its adapter, and a card with its prompt and its training.",
        *([f"Without an adapter, under the base: {', '.join(others)}."] if others else []),
        "\n".join(["```python", *loading, "```"]),
        _results(records[0]),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(record: Record, tags: Sequence[str] = ()) -> str:
    fields: dict[str, Any] = {
        "base_model": record["base_model"],
        "library_name": "transformers" if record["merged"] else "peft",
        "license": record["license"],
        "pipeline_tag": "text-generation",
        "tags": tags or ["malt", record["role"], *([] if record["merged"] else ["lora"])],
    }
    # The hub refuses a base_model that is no hub id, so a base from a local file is named below.
    lines = [f"{key}: {json.dumps(value)}" for key, value in fields.items() if value is not None]
    return "\n".join(["---", *lines, "---"])


def _introduction(record: Record) -> str:
    role, chain = record["role"], record["chain"]
    kind, loading = _MERGED if record["merged"] else _ADAPTER
    from_gguf = not record["merged"] and str(record["base"]).endswith(".gguf")
    hint = "\n\nThe base was read from a GGUF file. `--stage=merge` writes it as `export/base`, a "
    hint += "directory that this adapter goes on; merged models take no adapter."
    return (
        f"# {role.capitalize()} of a MALT team\n\n"
        f"{kind}, for step {chain.index(role) + 1} of the chain {' → '.join(chain)}. Trained with "
        f"[MALT]({_PAPER}) by malt_jax {record['versions']['malt-jax']}: answers at the leaves of "
        "trees of samples are graded, and each role learns from what made the team right.\n\n"
        f"- base: `{record['base']}`, weights `{record['base_hash']}`\n"
        f"- tokenizer: `{record['tokenizer_hash']}`\n"
        "- `malt.json` holds these, every setting and the package versions\n\n"
        f"```python\n{loading}\n```{hint if from_gguf else ''}"
    )


def _prompt(record: Record) -> str:
    role = record["settings"]["roles"][record["role"]]
    longest = max((len(run) for run in re.findall("`+", role["prompt"])), default=0)
    fence = "`" * max(3, longest + 1)
    lines = [
        "## Prompt",
        "One user message, through the base's own chat template if it has one; up to "
        f"{role['max_new_tokens']} new tokens at temperature "
        f"{record['settings']['sample']['temperature']:g}.",
        f"{fence}text\n{role['prompt']}\n{fence}",
        "A name in braces stands for the question or for an earlier role's answer.",
    ]
    if "{hint}" in role["prompt"]:
        lines[-1] += f" `{{hint}}` is: {record['answer_hint']}."
    return "\n\n".join(lines)


def _data(record: Record) -> str:
    data, settings = record["data"], record["settings"]
    lines = ["## Data", f"Task `{settings['data']['task']}`, seed {settings['seed']}."]
    if settings["credit"]["shuffle_rewards"]:
        lines[-1] += " **A negative control: the rewards were shuffled.**"
    if data["questions"] is not None:
        lines[-1] += f" {data['questions']:,} training questions."
    if (yields := data["yield"]) is not None:
        lines[-1] += (
            f" Of {yields['nodes']:,} samples of this role {yields['positives']:,} have a value "
            f"above {settings['credit']['threshold']:g}; {_made(record, yields)}."
        )
    return "\n\n".join(lines)


def _made(record: Record, yields: Mapping[str, Any]) -> str:
    """How many examples the samples gave each phase that the role goes through."""
    counted = {name: PHASES[name].counted for name in _phases(record) if name in PHASES}
    made = [
        f"{yields[key]:,} {key.removeprefix(f'{name}_')} for {name.upper()}"
        for name, key in counted.items()
        if key in yields
    ]
    return ", ".join(made) or "no examples for its phases"


def _phases(record: Record) -> Sequence[str]:
    trained: Sequence[str] = record["settings"]["roles"][record["role"]]["train"]
    return record.get("phases", trained)  # version 0.4 wrote none


def _training(record: Record) -> str:
    settings = record["settings"]
    lora = settings["lora"]
    lines = [
        "## Training",
        "",
        f"- LoRA: rank {lora['rank']}, alpha {lora['alpha']:g}, on {', '.join(lora['targets'])}",
    ]
    if (start := record["started_from"]) is not None:
        lines.append(f"- started from the adapter `{start['path']}` (`{start['hash']}`)")
    for phase in _phases(record):
        values = {k: v for k, v in settings[phase].items() if k not in _NOT_OF_THE_RESULT}
        lines.append(f"- {phase}: " + ", ".join(f"{k} {v}" for k, v in values.items()))
    return "\n".join(lines)


def _results(record: Record) -> str:
    results = record["results"]
    if results is None:
        return "## Results\n\nNot evaluated yet."
    about = (
        f"The team's, not this role's alone, on {results['split']['n']} held-out questions, the "
        f"most accurate first; `_mv` is a majority vote over {results['k']}, `_greedy` takes the "
        "likeliest token each time, and any other row is the mean of the passes that were drawn."
    )
    table = ["| system | accuracy | 95% interval |", "|---|--:|--:|", *_rows(results["systems"])]
    return "\n".join(["## Results", "", about, "", *table, *_equal_compute(results)])


def _rows(systems: Mapping[str, Any]) -> Iterator[str]:
    for name, score in sorted(systems.items(), key=lambda row: -row[1]["accuracy"]):
        low, high = (100 * bound for bound in score["ci95"])
        yield f"| `{name}` | {100 * score['accuracy']:.1f}% | {low:.1f} to {high:.1f} |"


def _equal_compute(results: Mapping[str, Any]) -> Iterator[str]:
    """The team beside the majority votes of single roles that spend as many tokens, by each price
    the strongest first. A version before 0.5 wrote one row, which is not repeated here."""
    rows = results.get("equal_compute")
    if not isinstance(rows, list) or not rows:
        return
    yield "\n### At equal compute\n"
    yield (
        f"`{rows[0]['system']}` minus the majority vote of a single role over as many samples as "
        "its tokens pay for, in points; prefixes that prompts share are read once on both sides. "
        "`sa` is the base model as the single agent, `generator` the same role as MALT trained "
        "it.\n"
    )
    yield "| tokens counted | vote of | samples | accuracy | difference | 95% interval |"
    yield "|---|---|--:|--:|--:|--:|"
    for row in sorted(rows, key=lambda row: (row["price"], -row["voting"]["accuracy"])):
        low, high = (100 * bound for bound in row["ci95"])
        counted = row["price"].replace("_", " ")
        yield (
            f"| {counted} | `{row['voter']}` | {row['k']} | {100 * row['voting']['accuracy']:.1f}% "
            f"| {100 * row['difference']:+.1f} | {low:+.1f} to {high:+.1f} |"
        )
