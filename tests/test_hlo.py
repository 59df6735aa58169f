"""What is read from the text of a compiled program, tried on a small one written by hand."""

from benchmarks.hlo import Array, Copy, Product, Program, arrays
from benchmarks.tpu.compile import collectives, read

TEXT = """HloModule jit_step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %add.1 = f32[]{:T(128)} add(%a, %b)
}

%fused_product (spikes: pred[128,8,8,64], kernel: bf16[3,3,64,64]) -> f32[128,8,8,64] {
  %spikes = pred[128,8,8,64]{0,3,2,1:T(8,128)(4,1)} parameter(0)
  %kernel = bf16[3,3,64,64]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  %turned = bf16[3,3,64,64]{2,3,1,0:T(8,128)(2,1)} transpose(%kernel), dimensions={0,1,3,2}
  ROOT %conv = f32[128,8,8,64]{0,3,2,1:T(8,128)S(1)} convolution(%spikes, %turned), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_01io->b01f, metadata={op_name="jit(step)/while/body/conv_1/conv"}
}

%copy_fusion (input: pred[128,8,8,64]) -> pred[128,8,8,64] {
  %input = pred[128,8,8,64]{0,3,2,1:T(8,128)(4,1)} parameter(0)
  ROOT %copy.1 = pred[128,8,8,64]{3,0,2,1:T(8,128)(4,1)} copy(%input)
}

%body (carry: (s32[], f32[128,8,8,64], pred[128,8,8,64])) -> (s32[], f32[128,8,8,64], pred[128,8,8,64]) {
  %carry = (s32[]{:T(128)}, f32[128,8,8,64]{0,3,2,1:T(8,128)}, pred[128,8,8,64]{0,3,2,1:T(8,128)(4,1)}) parameter(0)
  %membrane = f32[128,8,8,64]{0,3,2,1:T(8,128)} get-tuple-element(%carry), index=1
  %near = f32[128,8,8,64]{0,3,2,1:T(8,128)S(1)} copy(%membrane)
  %other = f32[128,8,8,64]{3,0,2,1:T(8,128)} copy(%membrane), metadata={op_name="jit(step)/while/body/norm_1"}
  %spikes.1 = pred[128,8,8,64]{0,3,2,1:T(8,128)(4,1)} get-tuple-element(%carry), index=2
  %kernel.1 = bf16[3,3,64,64]{3,2,1,0:T(8,128)(2,1)} constant({...})
  %current = f32[128,8,8,64]{0,3,2,1:T(8,128)S(1)} fusion(%spikes.1, %kernel.1), kind=kOutput, calls=%fused_product
  %along = pred[128,8,8,64]{3,0,2,1:T(8,128)(4,1)} fusion(%spikes.1), kind=kLoop, calls=%copy_fusion
  %gradients = (f32[3,3,64,64]{3,2,1,0:T(8,128)}, /*index=1*/f32[64]{0:T(128)}) all-reduce(%x, %y), \
channel_id=1, replica_groups=[1,4]<=[4], to_apply=%sum, metadata={op_name="jit(step)/while/body/psum"}
  %votes = (u8[9,8]{1,0:T(8,128)(4,1)}, u8[36,8]{1,0:T(8,128)(4,1)}) all-gather-start(%z), dimensions={0}
  %gathered = u8[36,8]{1,0:T(8,128)(4,1)} all-gather-done(%votes)
  ROOT %next = (s32[]{:T(128)}, f32[128,8,8,64]{0,3,2,1:T(8,128)}, pred[128,8,8,64]{0,3,2,1:T(8,128)(4,1)}) tuple(%t)
}

%condition (carry.1: (s32[], f32[128,8,8,64], pred[128,8,8,64])) -> pred[] {
  ROOT %go = pred[]{:T(512)} constant(true)
}

ENTRY %main (x.1: f32[32,10]) -> f32[] {
  %x.1 = f32[32,10]{1,0:T(8,128)} parameter(0)
  %first = (s32[]{:T(128)}, f32[128,8,8,64]{0,3,2,1:T(8,128)}, pred[128,8,8,64]{0,3,2,1:T(8,128)(4,1)}) tuple(%x.1)
  %loop = (s32[]{:T(128)}, f32[128,8,8,64]{0,3,2,1:T(8,128)}, pred[128,8,8,64]{0,3,2,1:T(8,128)(4,1)}) \
while(%first), condition=%condition, body=%body, metadata={op_name="jit(step)/while"}
  %labels = pred[]{:T(512)} all-reduce(%fine), to_apply=%sum, metadata={op_name="jit(step)/while/body/all"}
  ROOT %loss = f32[]{:T(128)} all-reduce(%mean), to_apply=%sum
}
"""
NEURONS = 128 * 8 * 8 * 64
PROGRAM = Program(TEXT)


def test_an_array_is_its_sizes_and_what_its_tiles_fill_up():
    (narrow,) = arrays("f32[32,4,4,64]{3,0,2,1:T(8,128)S(1)}")
    assert narrow == Array("f32", (32, 4, 4, 64), (3, 0, 2, 1), (8, 128), 1)
    assert (narrow.size, narrow.padded) == (4 * 32 * 16 * 64, 4 * 32 * 16 * 128)
    (full,) = arrays("bf16[128,8,8,64]{0,3,2,1:T(8,128)(2,1)}")
    assert full.size == full.padded == 2 * NEURONS
    (scalar, plain) = arrays("(f32[]{:T(128)}, pred[5,3]{1,0})")
    assert (scalar.size, scalar.padded) == (4, 512)
    assert plain.size == plain.padded == 15


def test_exchanges_are_found_with_what_they_give_and_where():
    found = [(one.kind, sum(array.size for array in one.arrays), one.in_loop) for one in PROGRAM.collectives()]
    assert found == [
        ("all-reduce", 4 * (9 * 64 * 64 + 64), True),
        ("all-gather", 36 * 8, True),
        ("all-reduce", 1, False),
        ("all-reduce", 4, False),
    ]


def test_exchanges_are_summed_by_kind_and_dtype():
    assert collectives(PROGRAM)[-1] == {
        "kind": "all-reduce",
        "dtype": "pred",
        "in loop": False,
        "count": 1,
        "bytes": 1,
    }
    assert [row["bytes"] for row in collectives(PROGRAM) if row["in loop"]] == [288, 4 * (9 * 64 * 64 + 64)]


def test_products_tell_what_they_multiply():
    origin = "jit(step)/while/body/conv_1/conv"
    assert PROGRAM.products() == [Product(("pred", "bf16"), "f32", "default", origin, True)]
    exact = TEXT.replace("size=3x3 pad=1_1x1_1}", "size=3x3 pad=1_1x1_1}, operand_precision={highest,highest}")
    assert [product.precision for product in Program(exact).products()] == ["highest"]


def test_a_copy_into_another_order_counts_and_a_move_or_a_part_of_arithmetic_does_not():
    order = Array("f32", (128, 8, 8, 64), (0, 3, 2, 1), (8, 128))
    turned = order._replace(order=(3, 0, 2, 1))
    spikes = [array._replace(dtype="pred") for array in (order, turned)]
    assert PROGRAM.copies() == [Copy(*spikes, "", True), Copy(order, turned, "jit(step)/while/body/norm_1", True)]
    assert turned.padded == 2 * turned.size


def test_a_program_in_short():
    found = read(PROGRAM, 4)
    # A ring of four: an all-reduce sends 2 * 3/4 of its bytes, an all-gather 3/4.
    sent = {"gradients": 4 * 9 * 64 * 64 * 3 // 2, "statistics": 4 * 64 * 3 // 2, "flips": 216, "other": 0}
    assert found["sent a time step"] == sent
    assert found["products"] == {"pred x bf16 -> f32": 1}
    assert [copy["bytes"] for copy in found["copies in the loop"]] == [2 * NEURONS, 8 * NEURONS]
    assert found["copies in the loop"][1]["before"] == "f32[128,8,8,64]{0,3,2,1:T(8,128)}"
    assert found["copies in the loop"][1]["after"] == "f32[128,8,8,64]{3,0,2,1:T(8,128)}"
    assert found["carried"] == {"arrays": 4 + 5 * NEURONS, "in memory": 512 + 5 * NEURONS, "on chip": 0}
    assert found["dtypes"] == ["bf16", "f32", "pred", "s32", "u8"]
