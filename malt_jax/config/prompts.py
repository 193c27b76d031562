"""The prompts that roles have unless a recipe gives others."""

_ANSWER = "End with one line of the form: Final Answer: X, where X is {hint} and nothing else."

GENERATOR = (
    "Solve the problem. Think step by step and show your work. "
    + _ANSWER
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
    + _ANSWER
    + "\n\nProblem:\n{question}\n\nProposed solution:\n{generator}\n\nCritique:\n{verifier}"
)

DEBATER = (
    "Below are a problem and the solutions that other agents gave to it. Use them as advice, keep "
    "what is right in them and write the best solution. "
    + _ANSWER
    + "\n\nProblem:\n{question}\n\n{others}"
)
