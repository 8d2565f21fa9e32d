"""Objects, who owns them, and when they end."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import Refused

_serial = itertools.count(1)


class Object:
    """An object of the other side; it is its own handle.

    `owned` counts the caller's ownerships, `pooled` the open pools that hold it, `held` the other
    objects that do. A handle may be used while one of the first two keeps it; the object itself
    lives as long as any does.
    """

    def __init__(self, class_name: str, protocols: Iterable[str] = (), **state: Any) -> None:
        self.class_name = class_name
        self.protocols = tuple(protocols)
        self.serial = next(_serial)
        self.owned = 0
        self.pooled = 0
        self.held = 0
        self.holds: list[Object] = []
        self.immortal = False
        self.ended = False
        self.properties: dict[str, Any] = {}
        self.__dict__.update(state)

    @property
    def usable(self) -> bool:
        return self.immortal or self.owned > 0 or self.pooled > 0

    def __repr__(self) -> str:
        return f"<{self.class_name} {self.serial}>"


class Heap:
    """Counts what lives; the autorelease pools of each thread."""

    def __init__(self) -> None:
        self._living: dict[int, Object] = {}
        self._threads = threading.local()
        self._lock = threading.RLock()

    def alive(self) -> Counter[str]:
        with self._lock:
            return Counter(o.class_name for o in self._living.values() if not o.immortal)

    def owned(self) -> Counter[str]:
        with self._lock:
            return Counter(
                o.class_name for o in self._living.values() if o.owned and not o.immortal
            )

    def _pools(self) -> list[list[Object]]:
        if not hasattr(self._threads, "pools"):
            self._threads.pools = []
        return self._threads.pools

    @contextmanager
    def pool(self) -> Iterator[None]:
        pools = self._pools()
        mine: list[Object] = []
        pools.append(mine)
        try:
            yield
        finally:
            if pools[-1] is not mine:
                raise Refused("autorelease pools must end in the reverse order of their beginning")
            pools.pop()
            for o in mine:
                self._change(o, "pooled", -1)

    def need_pool(self, what: str) -> None:
        if not self._pools():
            raise Refused(f"{what}: no autorelease pool is open in this thread, so it would leak")

    def autorelease(self, o: Object, what: str) -> Object:
        self.need_pool(what)
        self._pools()[-1].append(o)
        self._change(o, "pooled", 1)
        return o

    def own(self, o: Object) -> Object:
        self._change(o, "owned", 1)
        return o

    def disown(self, o: Object) -> None:
        if not o.immortal and o.owned <= 0:
            raise Refused(f"{o} is dropped, but the caller does not own it")
        self._change(o, "owned", -1)

    def hold(self, holder: Object, *objects: Object | None) -> None:
        for o in objects:
            if o is not None:
                holder.holds.append(o)
                self._change(o, "held", 1)

    def _change(self, o: Object, what: str, by: int) -> None:
        with self._lock:
            waiting = [(o, what, by)]
            while waiting:
                o, what, by = waiting.pop()
                setattr(o, what, getattr(o, what) + by)
                if o.owned + o.pooled + o.held > 0:
                    if o.ended:
                        raise Refused(f"{o} is used after its end")
                    self._living[o.serial] = o
                elif not o.immortal:
                    o.ended = True
                    self._living.pop(o.serial, None)
                    waiting += [(h, "held", -1) for h in o.holds]
                    o.holds = []
                    if (on_end := getattr(o, "on_end", None)) is not None:
                        on_end()

    def check(self, o: Any, what: str) -> Object:
        if not isinstance(o, Object):
            raise Refused(f"{what}: {o!r} is no object")
        if not o.usable:
            raise Refused(f"{what}: {o} is used after its pool ended or it was dropped")
        return o
