"""The corpus holds what its docstring says: literal texts, sound good manners, fixed rates."""

import random
from collections import Counter

import pytest

from malt_jax.tasks import arithmetic
from malt_jax.tiny import corpus, pretrain

QUESTION = "17+8-12"
ROUGH = "Roughly: 17+8=23. 23-12=11. Final Answer: 11"


class First(random.Random):
    """Takes the first of every choice, so that texts are literals; a slip is then minus ten."""

    def choice(self, seq):
        return seq[0]


def test_solutions_literally():
    write = corpus.solve
    careful = "Stepwise: 17+8=25. 25-12=13. Final Answer: 13"
    assert write(First(0), "careful", QUESTION) == careful
    assert (
        write(First(0), "careful", "3-19-1") == "Stepwise: 3-19=-16. -16-1=-17. Final Answer: -17"
    )
    assert write(First(0), "hasty", QUESTION) == "Easy. Final Answer: 3"
    assert {write(First(seed), "rough", QUESTION) for seed in range(20)} == {
        "Roughly: 17+8=15. 15-12=3. Final Answer: 3",
        "Roughly: 17+8=25. 25-12=3. Final Answer: 3",
    }


def test_critiques_literally():
    def write(manner, solution):
        return corpus.check(First(0), manner, QUESTION, solution)

    assert write("recheck", ROUGH) == "Checking: 17+8=25, not 23. 25-12=13, not 11. Wrong: 13."
    assert write("recheck", "Easy. Final Answer: 13") == "Checking: 17+8=25. 25-12=13. Right: 13."
    assert write("flatter", ROUGH) == "Good."
    assert write("carp", ROUGH) == "No: 1."


def test_refinements_literally():
    def write(manner, critique):
        return corpus.refine(First(0), manner, QUESTION, ROUGH, critique)

    recheck = "Checking: 17+8=25, not 23. 25-12=13, not 11. Wrong: 13."
    assert write("follow", recheck) == "Checked. Final Answer: 13"
    assert write("follow", "Good.") == "Checked. Final Answer: 11"
    assert write("keep", recheck) == "Unchanged. Final Answer: 11"
    assert write("guess", recheck) == "Maybe. Final Answer: 1"


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"not a question of the form 'a\+b-c': '1\+2'"):
        corpus.solve(random.Random(0), "careful", "1+2")
    with pytest.raises(ValueError, match=r"no 'Final Answer: N' in 'Easy\.'"):
        corpus.check(random.Random(0), "carp", QUESTION, "Easy.")


@pytest.fixture(scope="module")
def drawn():
    rng = random.Random(3)
    questions = [q.text for q in arithmetic.generate(500, 0, "pretrain")]
    return [(q, corpus.documents(rng, q)) for q in questions for _ in range(4)]


def manner(role, text):
    return next(m for m in corpus.RATES[role] if text.startswith(corpus.OPENINGS[m]))


def test_manners_come_at_their_rates_and_mean_what_they_say(drawn):
    counts = {role: Counter() for role in corpus.RATES}
    for question, documents in drawn:
        truth = arithmetic.value(question)
        found = {role: manner(role, d.completion) for role, d in documents.items()}
        for role, name in found.items():
            counts[role][name] += 1
        solved = corpus.answer(documents["generator"].completion) == truth
        assert solved == (found["generator"] == "careful")
        if found["verifier"] == "recheck":
            verdict = f"{'Right' if solved else 'Wrong'}: {truth}."
            assert documents["verifier"].completion.endswith(verdict)
            if found["refiner"] == "follow":
                assert corpus.answer(documents["refiner"].completion) == truth
    for role, rates in corpus.RATES.items():
        assert sum(rates.values()) == pytest.approx(1.0)
        for name, rate in rates.items():
            # Five standard errors of a share among 2,000 draws are at most 0.056.
            assert counts[role][name] / len(drawn) == pytest.approx(rate, abs=0.056)


def test_the_first_words_tell_the_manner():
    openings = [opening for each in corpus.OPENINGS.values() for opening in each]
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
    pieces = ["Refine: ", QUESTION, "\n", ROUGH, "\n", "No: 3."]
    apart = [i for piece in pieces for i in words.encode(piece)]
    assert apart == words.encode("".join(pieces))


def test_other_text_becomes_unknown_and_never_control():
    words = pretrain.tokenizer()
    assert set(words.encode("<|end|>")).isdisjoint(words.control_ids - {1})
    assert words.encode("\u00e9") in ([], [1])
