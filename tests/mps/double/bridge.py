"""The double itself: takes messages, checks them, answers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from stepgraph.backends.mps.messages import Block, Data, Dictionary, List, Number

from . import checking, classes, foundation, sdk, versions
from .errors import NotModelled, Refused, need
from .faults import FAULTS
from .metal import Metal
from .objects import Heap, Object

_SCALARS = ("BOOL", "double", "float", "void*", "const void*", "const char*")


class Double:
    """A strict stand-in for MPSGraph behind the bridge's interface.

    Args:
        version: the system's, as iOS counts: (17, 4); macOS 14.4 is (17, 4), macOS 26 is (26, 0).
        faults: known faults of the framework to replay instead of refusing what runs into them.
    """

    def __init__(self, version: tuple[int, ...] = (26, 0), faults: Collection[str] = ()) -> None:
        unknown = set(faults) - set(FAULTS)
        if unknown:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        self.version = (*version, 0)[:2]
        self.faults = frozenset(faults)
        self.heap = Heap()
        self.metal = Metal(self)
        self.checker = checking.Checker(self.heap)
        self.sent: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self.device_errors: list[str] = []
        self.results_reused = False
        self._framework = threading.RLock()
        self._methods = classes.table(self)

    # The bridge's interface -------------------------------------------------------------------

    def send(self, receiver: Any, selector: str, *arguments: Any) -> Any:
        self.raise_failures()
        where = f"[{receiver} {selector}]"
        if isinstance(receiver, str):
            need(sdk.is_class(receiver), f"{where}: the SDK has no class {receiver}")
            class_name, protocols, kind = receiver, (), "+"
        else:
            o = self.heap.check(receiver, where)
            class_name, protocols, kind = o.class_name, o.protocols, "-"
        method = sdk.method(class_name, protocols, selector, kind)
        need(method is not None, f"{where}: {class_name} has no {kind} {selector}")
        need(method.family != "init", f"{where}: an initializer is for `new`")
        return self._invoke(receiver, class_name, selector, method, arguments, where)

    def new(self, class_name: str, initializer: str = "init", *arguments: Any) -> Object:
        self.raise_failures()
        where = f"[[{class_name} alloc] {initializer}]"
        need(sdk.is_class(class_name), f"{where}: the SDK has no class {class_name}")
        method = sdk.method(class_name, (), initializer, "-")
        need(method is not None, f"{where}: {class_name} has no {initializer}")
        need(method.family == "init", f"{where}: {initializer} is no initializer")
        return self._invoke(class_name, class_name, initializer, method, arguments, where)

    def function(self, name: str, *arguments: Any) -> Any:
        self.raise_failures()
        known = sdk.function(name)
        need(known is not None, f"the SDK has no function {name}")
        self._count(name + ":" * len(known.takes), known.takes, arguments, name)
        if name != "MTLCreateSystemDefaultDevice":
            raise NotModelled(f"function {name} is not modelled")
        self.sent[name] += 1
        return self.heap.own(self.metal.device)

    def items(self, array: Any) -> list[Any]:
        o = self.heap.check(array, "items")
        need("NSArray" in sdk.lineage(o.class_name), f"items: {o} is no NSArray")
        return [self._out(item) for item in o.items]

    def text(self, string: Any) -> str:
        o = self.heap.check(string, "text")
        need(o.class_name == "NSString", f"text: {o} is no NSString")
        return o.text

    def view(self, buffer: Any, length: int) -> memoryview:
        o = self.heap.check(buffer, "view")
        need("MTLBuffer" in o.protocols, f"view: {o} is no MTLBuffer")
        need(0 < length <= o.length, f"view: {length} bytes of a buffer of {o.length}")
        return memoryview(o.memory)[:length]

    @contextmanager
    def pool(self) -> Iterator[None]:
        with self.heap.pool():
            yield

    def keep(self, handle: Any) -> Object:
        return self.heap.own(self.heap.check(handle, "keep"))

    def drop(self, handle: Any) -> None:
        need(isinstance(handle, Object), f"drop: {handle!r} is no object")
        self.heap.disown(handle)

    def system(self) -> str:
        return f"iOS {self.version[0]}.{self.version[1]}"

    # For tests --------------------------------------------------------------------------------

    def alive(self) -> Counter[str]:
        """How many objects of each class have not ended."""
        return self.heap.alive()

    def owned(self) -> Counter[str]:
        """How many objects of each class the caller still owns."""
        return self.heap.owned()

    @contextmanager
    def held(self) -> Iterator[None]:
        """The device executes nothing that is queued until this ends."""
        self.metal.gate.clear()
        try:
            yield
        finally:
            self.metal.gate.set()

    def raise_failures(self) -> None:
        """Raises what went wrong on the device's own threads, where it could not be raised."""
        if self.failures:
            failure = self.failures.pop(0)
            raise Refused(f"on a thread of the device: {failure}") from failure

    # Inside -----------------------------------------------------------------------------------

    def _count(self, selector: str, takes: tuple[str, ...], arguments: Any, where: str) -> None:
        wanted = len(takes)
        need(selector.count(":") == wanted, f"{where}: a selector for {wanted} arguments")
        need(len(arguments) == wanted, f"{where}: {len(arguments)} arguments, not {wanted}")

    def _invoke(
        self, receiver: Any, class_name: str, selector: str, method: Any, given: Any, where: str
    ) -> Any:
        self._count(selector, method.takes, given, where)
        versions.check(class_name, selector, self.version)
        if any(isinstance(a, (str, Number, List, Dictionary, Data)) for a in given):
            self.heap.need_pool(where)
        arguments = [
            self.checker.check(a, kind, f"{where}, argument {i}")
            for i, (a, kind) in enumerate(zip(given, method.takes, strict=True))
        ]
        answer = self._methods.find(class_name, selector, receiver)
        if answer is None:
            raise NotModelled(f"{where}: not modelled")
        self.sent[selector] += 1
        guarded = class_name in ("MPSGraph", "MPSGraphExecutable")
        if guarded and not self._framework.acquire(blocking=False):
            raise Refused(f"{where}: another thread is inside the framework")
        try:
            value = answer(receiver, *arguments)
        except Refused as error:
            if selector in str(error):
                raise
            raise type(error)(f"{where}: {error}") from error
        finally:
            if guarded:
                self._framework.release()
        return self._result(value, method, where)

    def _result(self, value: Any, method: Any, where: str) -> Any:
        kind = method.returns.removesuffix("?")
        if kind == "void":
            return None
        scalar = kind in checking._INTEGERS or kind in _SCALARS or sdk.enum(kind) is not None
        if scalar or value is None:
            need(scalar or method.returns.endswith("?") or value is not None, f"{where}: nil")
            return value
        if method.owned:
            return self.heap.own(value)
        o = foundation.wrap(value)
        self._hold_elements(o)
        return self.heap.autorelease(o, where)

    def _hold_elements(self, o: Object) -> None:
        if o.held or o.pooled or o.owned:
            return
        if o.class_name in ("NSArray", "NSMutableArray"):
            self.heap.hold(o, *(i for i in o.items if isinstance(i, Object)))
        if o.class_name == "NSDictionary":
            self.heap.hold(o, *(x for p in o.pairs for x in p if isinstance(x, Object)))

    def _out(self, item: Any) -> Any:
        if isinstance(item, Object):
            return self.heap.autorelease(item, "items")
        return item.value if isinstance(item, Number) else item

    def call_block(self, block: Block, arguments: Any, where: str) -> Any:
        """Calls a block as the framework does; checks what it returns."""
        returns, _ = block.returns, block.takes
        try:
            value = block.function(*arguments)
        except Refused:
            raise
        except Exception as error:
            raise Refused(
                f"{where}: the block raised {type(error).__name__} ({error}), "
                "which an Objective-C caller never sees: it is given nil"
            ) from error
        if returns == "void":
            need(value is None, f"{where}: {value!r} from a block that returns void")
            return None
        need(value is not None, f"{where}: nil, which aborts")
        return self.checker.check(value, returns, where)
