"""Bytes that a chip sends, from programs written by hand."""

import pytest

from malt_jax.plan.collectives import traffic

BODY = """
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[100])) -> (s32[], f32[100]) {
  %p = (s32[], f32[100]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[100]{0} get-tuple-element(%p), index=1
  %step = s32[] constant(STEP)
  %next = s32[] add(%i, %step)
  %all-reduce.1 = f32[100]{0} all-reduce(%x), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %out = (s32[], /*index=1*/f32[100]{0}) tuple(%next, %all-reduce.1)
}

%condition (p.1: (s32[], f32[100])) -> pred[] {
  %p.1 = (s32[], f32[100]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %end = s32[] LIMIT
  ROOT %less = pred[] compare(%i.1, %end), direction=LT
}

ENTRY %main (x.1: f32[100]) -> f32[100] {
  %start = (s32[], f32[100]) parameter(0)
  %while = (s32[], f32[100]) while(%start), condition=%condition, body=%bodyKNOWN
  ROOT %last = f32[100]{0} get-tuple-element(%while), index=1
}
"""
ONE = 400 * 2 * 3 / 4  # an all-reduce of 100 numbers of four bytes over four chips


def loop(step: int = 1, limit: str = "constant(6)", known: str = "") -> str:
    return BODY.replace("STEP", str(step)).replace("LIMIT", limit).replace("KNOWN", known)


@pytest.mark.parametrize(
    ("text", "times"),
    [
        (loop(), 6),
        (loop(step=4), 2),
        (loop(known=', backend_config={"known_trip_count":{"n":"9"}}'), 9),
        (loop(limit="parameter(1)"), 5),
    ],
)
def test_a_loops_body_counts_as_often_as_it_runs(text, times):
    assert traffic(text, unknown_trips=5) == {"all-reduce": times * ONE}


def entry(*lines: str) -> str:
    return "\n".join(["ENTRY %main (x: f32[8]) -> f32[8] {", *lines, "}"])


@pytest.mark.parametrize(
    ("line", "kind", "sent"),
    [
        (
            "%g = bf16[8,16]{1,0:T(8,128)(2,1)} all-gather(%x), replica_groups={{0,1},{2,3}}",
            "all-gather",
            256 / 2,
        ),
        (
            "%g = (f32[2]{0}, f32[8]{0}) all-gather-start(%x), replica_groups=[2,4]<=[8]",
            "all-gather",
            32 * 3 / 4,
        ),
        (
            "%r = f32[2]{0} reduce-scatter(%x), replica_groups=[1,4]<=[4], to_apply=%add",
            "reduce-scatter",
            8 * 3,
        ),
        (
            "%r = (f32[2]{0}, s32[]) all-reduce(%x, %y), "
            "replica_groups=mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b'}, to_apply=%add",
            "all-reduce",
            12 * 2 * 3 / 4,
        ),
        (
            "%a = s8[8]{0} all-to-all(%x), replica_groups=mesh['a'=2,'b'=2] {'a','b'}",
            "all-to-all",
            8 * 3 / 4,
        ),
        (
            "%p = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%x), "
            "source_target_pairs={{0,1},{1,0}}",
            "collective-permute",
            32,
        ),
    ],
)
def test_what_each_kind_sends(line, kind, sent):
    assert traffic(entry(line)) == {kind: sent}


def test_the_parts_of_a_split_collective_count_once():
    def part(name: str, chain: int) -> str:
        gather = f"%{name} = f32[8]{{0}} all-gather(%x), channel_id=7, replica_groups={{{{0,1}}}}"
        return f'{gather}, frontend_attributes={{chain_id="{chain}"}}'

    lines = [part("a", 0), part("b", 0), part("c", 1)]
    assert traffic(entry(*lines)) == {"all-gather": 2 * 16}


def test_a_conditional_counts_every_branch():
    text = loop().replace("ENTRY %main", "%was (y: f32[1]) -> f32[1] {\n}\n\n%looped") + entry(
        "%c = f32[100] conditional(%i, %x, %y), branch_computations={%looped, %was}"
    )
    assert traffic(text) == {"all-reduce": 6 * ONE}


def test_groups_in_a_form_not_known_are_refused():
    with pytest.raises(ValueError, match="form not known"):
        traffic(entry("%g = f32[8]{0} all-gather(%x), replica_groups=new"))
