# ruff: noqa: E501
"""HLO as compilers write it, cut down to what the counts look at."""

_LOOP = """HloModule jit_f, is_scheduled=true, num_partitions=8

%body (param: (s32[], bf16[8,128], s32[])) -> (s32[], bf16[8,128], s32[]) {
  %param = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, s32[]{:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%param), index=0
  %x = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%param), index=1
  %n = s32[]{:T(128)} get-tuple-element(%param), index=2
  %one = s32[]{:T(128)} STEP
  %copy.1 = s32[]{:T(128)} copy(%i)
  %add.1 = s32[]{:T(128)} add(%copy.1, %one), metadata={op_name="jit(f)/while/body/add"}
  %sum = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} all-reduce(%x), channel_id=1, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, to_apply=%add
  ROOT %tuple.1 = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, s32[]{:T(128)}) tuple(%add.1, %sum, %n)
}

%condition (param.1: (s32[], bf16[8,128], s32[])) -> pred[] {
  %param.1 = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, s32[]{:T(128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%param.1), index=0
  %n.1 = s32[]{:T(128)} get-tuple-element(%param.1), index=2
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %n.1), direction=LT
}

%add (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[] parameter(0)
  %b = bf16[] parameter(1)
  ROOT %c = bf16[] add(%a, %b)
}

ENTRY %main (x.2: bf16[8,128]) -> bf16[8,128] {
  %x.2 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %end = s32[]{:T(128)} END
  %copy.2 = s32[]{:T(128)} copy(%zero)
  %tuple.2 = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, s32[]{:T(128)}) tuple(%copy.2, %x.2, /*index=2*/%end)
  %loop = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, s32[]{:T(128)}) while(%tuple.2), condition=%condition, body=%body
  ROOT %out = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%loop), index=1
}
"""


def loop(step="constant(1)", end="constant(6)"):
    """A loop as TPUs write it, without its trip count: ``for (i = 0; i < end; i += step)``."""
    return _LOOP.replace("STEP", step).replace("END", end)


CHAIN = """HloModule jit_g, num_partitions=4

%start (p: bf16[16,64]) -> (bf16[16,64], bf16[64,64], u32[]) {
  %p = bf16[16,64]{1,0} parameter(0)
  %all-gather.1 = bf16[64,64]{1,0} all-gather(%p), channel_id=8, replica_groups=[1,4]<=[4], dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %call.1 = (bf16[16,64]{1,0}, bf16[64,64]{1,0}, u32[]{:S(2)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion (p.1: bf16[16,64], p.2: bf16[64,64], p.3: bf16[8,64]) -> (bf16[8,64], bf16[16,64], bf16[64,64]) {
  %p.1 = bf16[16,64]{1,0} parameter(0)
  %p.2 = bf16[64,64]{1,0} parameter(1)
  %p.3 = bf16[8,64]{1,0} parameter(2)
  %tanh = bf16[8,64]{1,0} tanh(%p.3)
  %all-gather.2 = bf16[64,64]{1,0} all-gather(%p.1), channel_id=8, replica_groups=[1,4]<=[4], dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %tuple = (bf16[8,64]{1,0}, bf16[16,64]{1,0}, bf16[64,64]{1,0}, bf16[64,64]{1,0}) tuple(%tanh, %p.1, %p.2, %all-gather.2)
}

%done (p.4: bf16[16,64], p.5: bf16[64,64]) -> bf16[64,64] {
  %p.4 = bf16[16,64]{1,0} parameter(0)
  %p.5 = bf16[64,64]{1,0} parameter(1)
  %all-gather.3 = bf16[64,64]{1,0} all-gather(%p.4), channel_id=8, replica_groups=[1,4]<=[4], dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %call.2 = bf16[64,64]{1,0} custom-call(%p.4, %p.5, %all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter (p.6: bf16[64,64]) -> bf16[16,64] {
  %p.6 = bf16[64,64]{1,0:S(1)} parameter(0)
  %all-reduce.1 = bf16[64,64]{1,0} all-reduce(%p.6), channel_id=9, replica_groups={{0,1,2,3}}, to_apply=%add
  %id = u32[] partition-id()
  %zero = u32[] constant(0)
  ROOT %cut = bf16[16,64]{1,0} dynamic-slice(%all-reduce.1, %id, %zero), dynamic_slice_sizes={16,64}
}

ENTRY %main (w: bf16[16,64], x: bf16[8,64]) -> bf16[16,64] {
  %w = bf16[16,64]{1,0} parameter(0)
  %x = bf16[8,64]{1,0} parameter(1)
  %f.1 = (bf16[16,64]{1,0}, bf16[64,64]{1,0}, u32[]{:S(2)}) fusion(%w), kind=kCustom, calls=%start
  %g.1 = bf16[16,64]{1,0} get-tuple-element(%f.1), index=0
  %g.2 = bf16[64,64]{1,0} get-tuple-element(%f.1), index=1
  %f.2 = (bf16[8,64]{1,0}, bf16[16,64]{1,0}, bf16[64,64]{1,0}, bf16[64,64]{1,0}) fusion(%g.1, %g.2, %x), kind=kOutput, calls=%async_collective_fusion
  %f.3 = bf16[64,64]{1,0} fusion(%g.1, %g.2), kind=kCustom, calls=%done
  %moved = (bf16[64,64]{1,0}, bf16[64,64]{1,0:S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%f.3), channel_id=3, source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  %there = bf16[64,64]{1,0:S(1)} collective-permute-done(%moved)
  ROOT %f.4 = bf16[16,64]{1,0} fusion(%there), kind=kCustom, calls=%all-reduce-scatter
}
"""
"""A gather that runs beside a fusion, in three parts; a permutation; a sum of which each device
keeps its share."""

ATTENTION = """HloModule m
ENTRY %main (q: bf16[2,8,16,40], k: bf16[2,8,24,40]) -> bf16[2,8,16,24] {
  %q = bf16[2,8,16,40]{3,2,1,0} parameter(0)
  %k = bf16[2,8,24,40]{3,2,1,0} parameter(1)
  ROOT %c = bf16[2,8,16,24]{3,2,1,0} convolution(%q, %k), window={size=2x8 stride=1x7 lhs_dilate=2x8}, dim_labels=01bf_01oi->01bf
}
"""
SLICES = """HloModule m
%cut (p: f32[100,8], q: s32[]) -> f32[1,8] {
  %p = f32[100,8]{1,0} parameter(0)
  %q = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %d = f32[1,8]{1,0} dynamic-slice(%p, %q, %zero), dynamic_slice_sizes={1,8}
}
%put (p: f32[100,8], r: f32[1,8], q: s32[]) -> f32[100,8] {
  %p = f32[100,8]{1,0} parameter(0)
  %r = f32[1,8]{1,0} parameter(1)
  %q = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %d = f32[100,8]{1,0} dynamic-update-slice(%p, %r, %q, %zero)
}
ENTRY %main (x: f32[100,8], i: s32[]) -> f32[100,8] {
  %x = f32[100,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %row = f32[1,8]{1,0} fusion(%x, %i), kind=kLoop, calls=%cut
  ROOT %y = f32[100,8]{1,0} fusion(%x, %row, %i), kind=kLoop, calls=%put
}
"""
ON_CHIP = """HloModule m
ENTRY %main (x: f32[100]) -> f32[100] {
  %x = f32[100]{0} parameter(0)
  %s = (f32[100]{0:S(1)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%x)
  %d = f32[100]{0:S(1)} copy-done(%s)
  %t = f32[100]{0:S(1)} tanh(%d)
  ROOT %e = f32[100]{0} exponential(%t)
}
"""
