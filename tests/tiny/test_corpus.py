"""The corpus holds what its docstring says: literal texts, sound good manners, fixed rates."""

import random
from collections import Counter

import pytest

from malt_jax.tasks import arithmetic
from malt_jax.tiny import corpus, pretrain

QUESTION = "7+8-2+9-4"
STEPWISE = "Stepwise: 7+8=15. Final Answer: 20"
ROUGH = "Roughly: 7+8=13. Final Answer: 16"


class First(random.Random):
    """Takes the first of every choice, so that texts are literals: a guess is five too low, a slip
    three."""

    def choice(self, seq):
        return seq[0]


def test_solutions_literally():
    write = corpus.solve
    assert write(First(0), "stepwise", QUESTION) == "Stepwise: 7+8=15. Final Answer: 13"
    assert write(First(0), "stepwise", "3-9-1+2-5") == "Stepwise: 3-9=-6. Final Answer: -15"
    assert write(First(0), "rough", QUESTION) == "Roughly: 7+8=12. Final Answer: 13"
    assert write(First(0), "hasty", QUESTION) == "Easy. Final Answer: 13"


def test_critiques_literally():
    def write(manner, solution):
        return corpus.check(First(0), manner, QUESTION, solution)

    assert write("recheck", STEPWISE) == "Checking: Right. 15-2=13+9=22."
    assert write("recheck", ROUGH) == "Checking: Wrong. 7+8=15."
    assert write("recheck", "Easy. Final Answer: 18") == "Checking: Wrong. 7+8=15."
    assert write("flatter", ROUGH) == "Good."
    assert write("carp", ROUGH) == "No: 13."


def test_refinements_literally():
    def write(manner, critique):
        return corpus.refine(First(0), manner, QUESTION, STEPWISE, critique)

    recheck = "Checking: Right. 15-2=13+9=22."
    assert write("follow", recheck) == "Checked. 22-4=18. Final Answer: 18"
    assert write("follow", "Checking: Wrong. 7+8=15.") == "Checked. 15-2=13. Final Answer: 13"
    assert write("follow", "No: 17.") == "Checked. Final Answer: 17"
    assert write("follow", "Good.") == "Checked. Final Answer: 20"
    assert write("keep", recheck) == "Unchanged. Final Answer: 20"
    assert write("guess", recheck) == "Maybe. Final Answer: 17"


def test_bad_input_is_named():
    for text in ("", "1+", "1*2", "a"):
        with pytest.raises(ValueError, match=r"not a sum of the form 'a\+b-c': "):
            corpus.parse(text)
    with pytest.raises(ValueError, match=r"no 'Final Answer: N' in 'Easy\.'"):
        corpus.check(random.Random(0), "carp", QUESTION, "Easy.")


def test_sums_are_read_and_shown():
    assert corpus.parse("-6-1+12") == [-6, -1, 12]
    for question in arithmetic.generate(100, 0, "pretrain"):
        terms = corpus.parse(question.text)
        assert sum(terms) == int(question.answer)
        assert corpus.shown(terms) == question.text


@pytest.fixture(scope="module")
def drawn():
    rng = random.Random(3)
    questions = [q.text for q in arithmetic.generate(500, 0, "pretrain")]
    return [(q, corpus.documents(rng, q)) for q in questions for _ in range(4)]


def manner(role, text):
    return next(m for m in corpus.RATES[role] if text.startswith(corpus.OPENINGS[m]))


def test_manners_come_at_their_rates(drawn):
    for role, rates in corpus.RATES.items():
        assert sum(rates.values()) == pytest.approx(1.0)
        counts = Counter(manner(role, documents[role].completion) for _, documents in drawn)
        for name, rate in rates.items():
            # Five standard errors of a share among 2,000 draws are at most 0.056.
            assert counts[name] / len(drawn) == pytest.approx(rate, abs=0.056)
    for rates in corpus.READ.values():
        assert sum(rates.values()) == pytest.approx(1.0)


def test_a_solution_guesses_evenly_on_both_sides_of_the_truth(drawn):
    """So neither the likeliest guess nor a vote tells it, whatever the manner."""
    gaps = {name: Counter() for name in corpus.RATES["generator"]}
    for question, documents in drawn:
        for role in ("generator", "debater"):
            text = documents[role].completion
            gap = corpus.answer(text) - arithmetic.value(question)
            gaps[manner("generator", text)][gap] += 1
    for counts in gaps.values():
        assert set(counts) == set(corpus.SPREAD)
        # Five standard errors of a seventh of 550 draws are 0.075.
        assert counts.total() > 550
        assert max(counts.values()) / counts.total() < 1 / 7 + 0.075
        assert counts[0] / counts.total() > 1 / 7 - 0.075


def test_only_three_good_manners_in_a_row_reach_the_truth(drawn):
    rng, right = random.Random(0), Counter()
    for question, _ in drawn[::4]:
        for first in corpus.RATES["generator"]:
            for second in corpus.RATES["verifier"]:
                solution = corpus.solve(rng, first, question)
                critique = corpus.check(rng, second, question, solution)
                last = corpus.refine(rng, "follow", question, solution, critique)
                right[first, second] += corpus.answer(last) == arithmetic.value(question)
    assert right.pop(("stepwise", "recheck")) == 500
    # By chance: a guess in one of seven cases, 71; five standard errors are 39.
    assert all(count < 110 for count in right.values())


def test_the_first_words_tell_the_manner():
    openings = [opening for words in corpus.OPENINGS.values() for opening in words]
    assert len(set(openings)) == len(openings)


def test_the_tokenizer_knows_every_text(drawn):
    words = pretrain.tokenizer()
    unknown = words.fast.token_to_id("<unk>")
    for _, documents in drawn:
        for text in (t for document in documents.values() for t in document):
            ids = words.encode(text)
            assert unknown not in ids
            assert words.decode(ids) == text


def test_pieces_of_a_prompt_encode_alike_apart_and_joined():
    words = pretrain.tokenizer()
    pieces = ["Refine: ", QUESTION, "\n", ROUGH, "\n", "No: 13."]
    apart = [i for piece in pieces for i in words.encode(piece)]
    assert apart == words.encode("".join(pieces))


def test_other_text_becomes_unknown_and_never_control():
    words = pretrain.tokenizer()
    assert set(words.encode("<|end|>")).isdisjoint(words.control_ids - {1})
    assert words.encode("\u00e9") in ([], [1])
