"""Typed values with operators, pointers and variables: the nouns of `emit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llvmlite import ir

if TYPE_CHECKING:
    from stepgraph.backends.cpu.native.emit import Function

i1, i8, i16 = ir.IntType(1), ir.IntType(8), ir.IntType(16)
i32, i64 = ir.IntType(32), ir.IntType(64)
f32, f64 = ir.FloatType(), ir.DoubleType()

_BYTES = {i1: 1, i8: 1, i16: 2, i32: 4, i64: 8, f32: 4, f64: 8}


@dataclass(frozen=True)
class PointerTo:
    """Type of a pointer argument: LLVM's opaque pointer, and what we know it points to."""

    element: Any
    ir: Any


def pointer(element_type: Any) -> PointerTo:
    """Type of a pointer to scalars of a type."""
    return PointerTo(element_type, ir.PointerType())


def vector(scalar: Any, count: int) -> Any:
    """Type of `count` lanes of a scalar; the scalar itself for one lane."""
    return ir.VectorType(scalar, count) if count > 1 else scalar


def lanes(type_: Any) -> int:
    """Number of lanes of a type; 1 for scalars."""
    return int(type_.count) if isinstance(type_, ir.VectorType) else 1


def element(type_: Any) -> Any:
    """Scalar type of a vector, or the scalar type itself."""
    return type_.element if isinstance(type_, ir.VectorType) else type_


def is_float(type_: Any) -> bool:
    """Whether lanes of this type are floating point."""
    return element(type_) in (f32, f64)


def wrap(f: Function, raw: Any, type_: Any) -> Any:
    """A raw IR value as `Value`, or as `Pointer` if its type says so."""
    return Pointer(f, raw, type_.element) if isinstance(type_, PointerTo) else Value(f, raw)


class Value:
    """An IR value of scalar or vector type.

    Integers are signed. Comparisons of floats are false when either side is NaN, ``!=`` is true.
    """

    __hash__ = None  # type: ignore[assignment]  # == makes code, so values cannot be keys
    __slots__ = ("f", "ir")

    def __init__(self, f: Function, raw: Any) -> None:
        self.f = f
        self.ir = raw

    @property
    def type(self) -> Any:
        """LLVM's type of the value."""
        return self.ir.type

    def like(self, other: Value | float) -> Value:
        """`other` with this value's lanes: numbers become constants, scalars are splat."""
        if not isinstance(other, Value):
            return self.f.constant(self.type, other)
        if lanes(self.type) > 1 and lanes(other.type) == 1:
            return self.f.splat(other, lanes(self.type))
        return other

    def _binary(self, other: Value | float, names: tuple[str, str]) -> Value:
        right = self.like(other)
        left = right.like(self)
        name = names[0] if is_float(left.type) else names[1]
        if left.type != right.type:
            raise TypeError(f"{name}: {left.type} and {right.type}")
        return Value(self.f, getattr(self.f.builder, name)(left.ir, right.ir))

    def __add__(self, other: Value | float) -> Value:
        return self._binary(other, ("fadd", "add"))

    def __sub__(self, other: Value | float) -> Value:
        return self._binary(other, ("fsub", "sub"))

    def __mul__(self, other: Value | float) -> Value:
        return self._binary(other, ("fmul", "mul"))

    def __truediv__(self, other: Value | float) -> Value:
        return self._binary(other, ("fdiv", "sdiv"))

    def __floordiv__(self, other: Value | float) -> Value:
        """Integer division towards zero, as C's."""
        return self._binary(other, ("", "sdiv"))

    def __mod__(self, other: Value | float) -> Value:
        """Remainder with the sign of the left operand, as C's."""
        return self._binary(other, ("frem", "srem"))

    def __and__(self, other: Value | int) -> Value:
        return self._binary(other, ("", "and_"))

    def __or__(self, other: Value | int) -> Value:
        return self._binary(other, ("", "or_"))

    def __xor__(self, other: Value | int) -> Value:
        return self._binary(other, ("", "xor"))

    def __lshift__(self, other: Value | int) -> Value:
        return self._binary(other, ("", "shl"))

    def __rshift__(self, other: Value | int) -> Value:
        """Shifts the sign in."""
        return self._binary(other, ("", "ashr"))

    def __radd__(self, other: float) -> Value:
        return self.like(other) + self

    def __rsub__(self, other: float) -> Value:
        return self.like(other) - self

    def __rmul__(self, other: float) -> Value:
        return self.like(other) * self

    def __rtruediv__(self, other: float) -> Value:
        return self.like(other) / self

    def __neg__(self) -> Value:
        b = self.f.builder
        return Value(self.f, (b.fneg if is_float(self.type) else b.neg)(self.ir))

    def __invert__(self) -> Value:
        return Value(self.f, self.f.builder.not_(self.ir))

    def _compare(self, sign: str, other: Value | float) -> Value:
        right = self.like(other)
        left = right.like(self)
        b = self.f.builder
        if not is_float(left.type):
            compare = b.icmp_signed
        else:
            compare = b.fcmp_unordered if sign == "!=" else b.fcmp_ordered
        return Value(self.f, compare(sign, left.ir, right.ir))

    def __lt__(self, other: Value | float) -> Value:
        return self._compare("<", other)

    def __le__(self, other: Value | float) -> Value:
        return self._compare("<=", other)

    def __gt__(self, other: Value | float) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Value | float) -> Value:
        return self._compare(">=", other)

    def __eq__(self, other: Value | float) -> Value:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: Value | float) -> Value:  # type: ignore[override]
        return self._compare("!=", other)

    def lane(self, number: int) -> Value:
        """One lane of a vector."""
        if lanes(self.type) == 1 and not isinstance(self.type, ir.VectorType):
            return self
        position = ir.Constant(i32, number)
        return Value(self.f, self.f.builder.extract_element(self.ir, position))

    def with_lane(self, number: int, scalar: Value) -> Value:
        """The vector with one lane replaced."""
        position = ir.Constant(i32, number)
        return Value(self.f, self.f.builder.insert_element(self.ir, scalar.ir, position))


class Pointer(Value):
    """Where scalars of one type lie; ``pointer + i`` counts in them."""

    __slots__ = ("element",)

    def __init__(self, f: Function, raw: Any, element_type: Any) -> None:
        super().__init__(f, raw)
        self.element = element_type

    def __add__(self, other: Value | float) -> Pointer:
        offset = other if isinstance(other, Value) else self.f.constant(i64, other)
        raw = self.f.builder.gep(self.ir, [offset.ir], source_etype=self.element)
        return Pointer(self.f, raw, self.element)

    def load(self, count: int = 1, *, align: int | None = None) -> Value:
        """Reads `count` lanes; alignment in bytes, by default one element's."""
        type_ = vector(self.element, count)
        known = align or _BYTES[self.element]
        return Value(self.f, self.f.builder.load(self.ir, typ=type_, align=known))

    def store(self, value: Value, *, align: int | None = None) -> None:
        """Writes a scalar or a vector; alignment in bytes, by default one element's."""
        if element(value.type) != self.element:
            raise TypeError(f"store: {value.type} at a pointer to {self.element}")
        self.f.builder.store(value.ir, self.ir, align=align or _BYTES[self.element])

    def prefetch(self, *, write: bool = False, level: int = 1) -> None:
        """Asks for the cache line here; an address that does not exist does no harm.

        Args:
            write: it will be written.
            level: the cache that it shall come to, 1 to 3.
        """
        f = self.f
        hint = f.module.external(
            "llvm.prefetch.p0", ir.VoidType(), [ir.PointerType(), i32, i32, i32]
        )
        access, keep, data = (ir.Constant(i32, number) for number in (int(write), 4 - level, 1))
        f.builder.call(hint, [self.ir, access, keep, data])

    def select(self, condition: Value, otherwise: Pointer) -> Pointer:
        """This pointer where the condition holds, else the other."""
        raw = self.f.builder.select(condition.ir, self.ir, otherwise.ir)
        return Pointer(self.f, raw, self.element)


class Variable:
    """A place whose value changes from one loop turn to the next; LLVM makes it a register."""

    __slots__ = ("_element", "_place", "f", "type")

    def __init__(self, f: Function, place: Any, initial: Value) -> None:
        self.f = f
        self._place = place
        self._element = initial.element if isinstance(initial, Pointer) else None
        self.type = initial.type
        self.set(initial)

    def get(self) -> Any:
        """The value now; a `Pointer` if a pointer was put in."""
        raw = self.f.builder.load(self._place, typ=self.type)
        return Pointer(self.f, raw, self._element) if self._element else Value(self.f, raw)

    def set(self, value: Value) -> None:
        """Changes the value from here on."""
        if value.type != self.type:
            raise TypeError(f"variable of {self.type} cannot hold {value.type}")
        self.f.builder.store(value.ir, self._place)
