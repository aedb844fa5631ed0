"""Sixteen float32 lanes as one value inside numba functions.

numba leaves SIMD to LLVM's loop vectoriser, which gives up on loops over many arrays that might overlap. Code
written on this type is vector code whatever the arrays are; LLVM splits the lanes over the registers that the
processor has (one of AVX-512, two of AVX, four of SSE or NEON).

    u = load(plane, offset)             # plane: contiguous float32; offset in elements, not checked
    store(plane, offset, minimum(u * u, fill(1.0)) + u)

The operators are `+ - * /`; results may differ from strict IEEE evaluation in the last bits (contraction).
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
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


class Lanes(types.Type):
    """numba's type of a value of sixteen float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _VECTOR)


def _register_operator(function, instruction: str) -> None:
    @infer_global(function)
    class _Template(ConcreteTemplate):
        cases = [signature(lanes, lanes, lanes)]

    @lower_builtin(function, lanes, lanes)
    def _lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args, flags=_FAST)


_register_operator(operator.add, "fadd")
_register_operator(operator.sub, "fsub")
_register_operator(operator.mul, "fmul")
_register_operator(operator.truediv, "fdiv")


def _pointer(context, builder, array_type, array, offset):
    data = make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())


@intrinsic
def load(typingctx, array, offset):
    """Lanes at `array[offset : offset + LANES]`."""

    def generate(context, builder, sig, args):
        return builder.load(_pointer(context, builder, sig.args[0], *args), align=4)

    return lanes(array, types.intp), generate


@intrinsic
def store(typingctx, array, offset, value):
    """Write lanes to `array[offset : offset + LANES]`."""

    def generate(context, builder, sig, args):
        builder.store(args[2], _pointer(context, builder, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


def _splat(builder, scalar):
    index = ir.VectorType(ir.IntType(32), LANES)
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, first, ir.Constant(index, [0] * LANES))


@intrinsic
def fill(typingctx, scalar):
    """The same number in every lane."""

    def generate(context, builder, sig, args):
        return _splat(builder, args[0])

    return lanes(types.float32), generate


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
def square_root(typingctx, value):
    """Square root of every lane."""

    def generate(context, builder, sig, args):
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32")
        return builder.call(function, args, fastmath=_FAST)

    return lanes(lanes), generate


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


@intrinsic
def sum_quads(typingctx, value):
    """Sum of the four groups of four lanes; the first three of the four sums, as a tuple of float32."""

    def generate(context, builder, sig, args):
        quad = _halves_added(builder, _halves_added(builder, args[0], 16), 8)
        sums = [builder.extract_element(quad, ir.Constant(ir.IntType(32), lane)) for lane in range(3)]
        return cgutils.pack_array(builder, sums)

    return types.UniTuple(types.float32, 3)(lanes), generate
