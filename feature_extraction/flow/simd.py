"""Sixteen (or four) float32 lanes as one value inside numba functions.

numba leaves SIMD to LLVM's loop vectoriser, which gives up on loops over many arrays that might overlap. Code
written on this type is vector code whatever the arrays are; LLVM splits the lanes over the registers that the
processor has (one of AVX-512, two of AVX, four of SSE or NEON).

    u = load(plane, offset)             # plane: contiguous float32; offset in elements, not checked
    store(plane, offset, minimum(u * u, fill(1.0)) + u)

The operators are `+ - * /`, each rounded by itself as IEEE 754 says; only `fused` rounds once, and only where
the processor has the instruction. A quad holds four lanes: the channels of one pixel.
"""

import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model
from numba.np.arrayobj import make_array

LANES = 16
_FAST = ("nnan", "ninf", "nsz")


class Lanes(types.Type):
    """numba's type of a value of `count` float32 lanes."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.vector = ir.VectorType(ir.FloatType(), count)
        super().__init__(name=f"float32x{count}")


lanes, quad = Lanes(LANES), Lanes(4)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, fe_type.vector)


def _register_operator(function, instruction: str) -> None:
    @infer_global(function)
    class _Template(ConcreteTemplate):
        cases = [signature(kind, kind, kind) for kind in (lanes, quad)]

    # No fast-math flags: they would let the compiler round otherwise than written.
    @lower_builtin(function, Lanes, Lanes)
    def _lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args)


_register_operator(operator.add, "fadd")
_register_operator(operator.sub, "fsub")
_register_operator(operator.mul, "fmul")
_register_operator(operator.truediv, "fdiv")


def _pointer(context, builder, array_type, array, offset, vector):
    data = make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _loading(kind: Lanes):
    @intrinsic
    def load_kind(typingctx, array, offset):
        def generate(context, builder, sig, args):
            return builder.load(_pointer(context, builder, sig.args[0], *args, kind.vector), align=4)

        return kind(array, types.intp), generate

    return load_kind


def _splat(builder, scalar, vector):
    index = ir.VectorType(ir.IntType(32), vector.count)
    zero = ir.Constant(ir.IntType(32), 0)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, zero)
    return builder.shuffle_vector(first, first, ir.Constant(index, [0] * vector.count))


def _filling(kind: Lanes):
    @intrinsic
    def fill_kind(typingctx, scalar):
        def generate(context, builder, sig, args):
            return _splat(builder, args[0], kind.vector)

        return kind(types.float32), generate

    return fill_kind


# `array[offset : offset + count]` as one value; the same number in every lane.
load, load_quad = _loading(lanes), _loading(quad)
fill, fill_quad = _filling(lanes), _filling(quad)


@intrinsic
def store(typingctx, array, offset, value):
    """Write lanes to `array[offset : offset + count]`."""

    def generate(context, builder, sig, args):
        pointer = _pointer(context, builder, sig.args[0], *args[:2], sig.args[2].vector)
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


def _select(comparison: str):
    @intrinsic
    def choose(typingctx, a, b):
        def generate(context, builder, sig, args):
            return builder.select(builder.fcmp_ordered(comparison, *args, flags=_FAST), *args)

        return lanes(lanes, lanes), generate

    return choose


minimum = _select("<")
maximum = _select(">")


@intrinsic
def where_less(typingctx, a, b, chosen, other):
    """Per lane: `chosen` where `a < b`, else `other`."""

    def generate(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return lanes(lanes, lanes, lanes, lanes), generate


@intrinsic
def first_from(typingctx, first, others):
    """Lane 0 of `first`, the other lanes of `others`."""

    def generate(context, builder, sig, args):
        index = ir.VectorType(ir.IntType(32), LANES)
        return builder.shuffle_vector(*args, ir.Constant(index, [0, *range(LANES + 1, 2 * LANES)]))

    return lanes(lanes, lanes), generate


def _declared(builder, name: str, kinds: tuple, result):
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)


@intrinsic
def fused(typingctx, a, b, c):
    """`a * b + c` with one rounding where the processor can, of lanes, quads or float32 numbers."""
    suffix = f"v{a.count}f32" if isinstance(a, Lanes) else "f32"

    def generate(context, builder, sig, args):
        kind = args[0].type
        return builder.call(_declared(builder, f"llvm.fmuladd.{suffix}", (kind,) * 3, kind), args)

    return a(a, b, c), generate


@intrinsic
def floor_lanes(typingctx, value):
    """The largest whole number not above each lane."""

    def generate(context, builder, sig, args):
        kind = args[0].type
        return builder.call(_declared(builder, f"llvm.floor.v{LANES}f32", (kind,), kind), args)

    return lanes(lanes), generate


@intrinsic
def hypotenuse(typingctx, a, b):
    """`sqrt(a * a + b * b)` per lane, as `hypotf` gives it: computed in double precision, then rounded."""

    def generate(context, builder, sig, args):
        double = ir.VectorType(ir.DoubleType(), LANES)
        wide_a, wide_b = (builder.fpext(argument, double) for argument in args)
        total = builder.fadd(builder.fmul(wide_a, wide_a), builder.fmul(wide_b, wide_b))
        root = builder.call(_declared(builder, f"llvm.sqrt.v{LANES}f64", (double,), double), [total])
        return builder.fptrunc(root, lanes.vector)

    return lanes(lanes, lanes), generate


def _halves_added(builder, value, count: int):
    half = count // 2
    index = ir.VectorType(ir.IntType(32), half)
    low = builder.shuffle_vector(value, value, ir.Constant(index, list(range(half))))
    high = builder.shuffle_vector(value, value, ir.Constant(index, list(range(half, count))))
    return builder.fadd(low, high, flags=_FAST)


@intrinsic
def sum_lanes(typingctx, value):
    """Sum of the lanes, a float32."""

    def generate(context, builder, sig, args):
        total, count = args[0], LANES
        while count > 2:
            total, count = _halves_added(builder, total, count), count // 2
        ends = [builder.extract_element(total, ir.Constant(ir.IntType(32), lane)) for lane in range(2)]
        return builder.fadd(*ends, flags=_FAST)

    return types.float32(lanes), generate
