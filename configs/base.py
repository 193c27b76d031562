"""Every setting with its default, for the other configs to start from: the paper's choices where
it states them.

Not a recipe: it names no data set. Start from `configs/quickstart.py` instead.
"""

from ml_collections import ConfigDict

ANSWER = "End with one line of the form: Final Answer: X, where X is {hint} and nothing else."

GENERATOR = (
    "Solve the problem. Think step by step and show your work. "
    + ANSWER
    + "\n\nProblem:\n{question}"
)

VERIFIER = (
    "Below are a problem and a proposed solution. Check the solution step by step. Say which step "
    "is the first wrong one and why, or say that every step is right. Do not write a new solution."
    "\n\nProblem:\n{question}\n\nProposed solution:\n{generator}"
)

REFINER = (
    "Below are a problem, a proposed solution and a critique of it. Use what is right in both and "
    "write the best solution. "
    + ANSWER
    + "\n\nProblem:\n{question}\n\nProposed solution:\n{generator}\n\nCritique:\n{verifier}"
)

DEBATER = (
    "Below are a problem and the solutions that other agents gave to it. Use them as advice, keep "
    "what is right in them and write the best solution. "
    + ANSWER
    + "\n\nProblem:\n{question}\n\n{others}"
)


def role(prompt: str, max_new_tokens: int, train: tuple[str, ...]) -> ConfigDict:
    return ConfigDict(
        {
            "prompt": prompt,  # shows {question}, {hint} (what kind of X) and earlier roles
            "branching": 3,  # n: samples a parent
            "max_new_tokens": max_new_tokens,
            "train": train,  # phases in order; () leaves the role at the base model
            "adapter": "",  # a PEFT directory to train on from, or, if train is (), to evaluate
        }
    )


def phase(learning_rate: float) -> ConfigDict:
    return ConfigDict(
        {
            "learning_rate": learning_rate,  # peak; ours, the paper gives only multipliers
            "batch": 8,  # rows (SFT, KTO) or pairs (DPO) of a micro-batch, packed
            "accumulate": 1,  # micro-batches an optimiser step
            "epochs": 2,  # the paper: 1 to 10 by data set size
            "warmup": 0.1,  # fraction of the steps; cosine to 0 after it
            "weight_decay": 0.0,
            "clip_norm": 1.0,
            "held_out": 0.1,  # share of questions not trained on; the same ones in every phase
            "eval_every": 20,  # optimiser steps between held-out evaluations; the best is kept
            "patience": 0,  # evaluations without a better one that end the phase; 0: never
            "max_nonfinite": 3,  # steps with a loss or gradient not finite that end the run
            "checkpoint_every": 100,  # optimiser steps between checkpoints; 3 minutes if sooner
            # What a layer keeps for its backward pass: keep_all, keep_products (the outputs of its
            # matrix products; the rest is cheap to redo) or keep_inputs (least memory, but half as
            # much work again).
            "remat": "keep_products",
        }
    )


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.workdir = "runs/base"
    # Experiments around this run: paper_table1, ablations, sweeps, control, transfer, seeds, or
    # several of them with commas between; "": none.
    c.suite = ""
    # Another run's work directory to learn from instead of collecting trees; "": collect. Another
    # threshold, shuffled rewards, a smaller n and a shorter chain need no new samples.
    c.trees = ""
    c.model = ConfigDict(
        {
            "path": "",  # a Hugging Face directory, a .gguf file or a hub id
            "dtype": "float32",
        }
    )
    c.data = ConfigDict(
        {
            "task": "",  # gsm8k, math, csqa, mawps or svamp (_equations), arithmetic, jsonl
            "train": "",  # file, hub id, or "" for the task's own hub id
            "eval": "",
            "exclude": (),  # more test sets, TASK:PATH, that training must not overlap with
            "train_questions": 0,  # 0: all
            "skip_questions": 0,  # training questions to pass over: those of a warm start, say
            "eval_questions": 0,
            "max_chars": 4000,  # longer questions are dropped and reported
        }
    )
    c.chain = ("generator", "verifier", "refiner")
    c.roles = ConfigDict(
        {
            "generator": role(GENERATOR, 300, ("sft",)),
            "verifier": role(VERIFIER, 200, ("sft", "dpo")),
            "refiner": role(REFINER, 300, ("sft", "dpo")),
        }
    )
    c.sample = ConfigDict(
        {
            "temperature": 0.3,  # trees and evaluation; 0 is greedy
            "top_k": 0,  # 0: off
            "top_p": 1.0,  # 1: off
            "rows": 96,  # sequences decoded at a time, over all devices
            "kv_gib": 0.0,  # most memory of the KV cache on a device; 0: 60% of what is free
            # Trees committed at a time: what a kill can cost, and what hosts share out.
            "questions_per_shard": 16,
        }
    )
    c.credit = ConfigDict(
        {
            "threshold": 0.5,  # positive: value strictly above it
            "shuffle_rewards": False,  # the negative control: rewards permuted in a shard
            "max_positives_per_parent": 3,
            "max_pairs_per_parent": 2,
        }
    )
    c.lora = ConfigDict(
        {"rank": 16, "alpha": 32.0, "targets": ("q", "k", "v", "o", "gate", "up", "down")}
    )
    c.sft = phase(2e-4)
    c.dpo = phase(5e-5)
    c.dpo.beta = 0.2
    c.dpo.loss = "sigmoid"  # or ipo, hinge, robust, sigmoid_norm (averaged over tokens)
    c.dpo.label_smoothing = 0.0  # of robust: the share of labels taken to be flipped
    c.dpo.rpo_alpha = 0.0  # weight of an added SFT term on the chosen; 0: off
    c.kto = phase(5e-5)  # on single labelled samples; not in the paper
    c.kto.batch = 16  # its reference point is a mean over the batch
    c.kto.beta = 0.1
    c.kto.desirable = 1.0  # weights of the two labels, to balance their numbers
    c.kto.undesirable = 1.0
    c.wandb = ""  # a Weights & Biases project to log training to as well; "": none
    c.eval = ConfigDict(
        {
            "systems": ("sa", "sa_mv", "ma", "ma_mv", "malt", "malt_mv"),
            # The role that is the single agent, of config.roles; "": the first of config.chain.
            "single_agent": "",
            "votes": 3,  # k samples of the single agent, or k passes of the team
            # As many more votes of the single agent as the costliest team's tokens pay for.
            "equal_compute": True,
            "critiques": False,  # the last role again, with another question's critique or none
            "debate": {
                "agents": 3,
                "rounds": 3,
                "prompt": DEBATER,
                "other": "Solution of another agent:\n{other}",
            },
            "resamples": 10_000,  # of the bootstrap
        }
    )
    c.mesh = ConfigDict({"data": 0, "fsdp": 1, "tensor": 1})  # data 0: the devices that are left
    return c
