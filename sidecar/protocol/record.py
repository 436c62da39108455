"""Plain values with slots, made cheaply: there are dozens of kinds, and each start makes them all.

A frozen dataclass gets eight generated methods, which take a third of the time until `hello`.
A record gets `__init__` alone and shares the others. It is frozen for the type checker, which
sees every assignment there is in this code; at runtime nothing looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, dataclass_transform

T = TypeVar("T", bound="Record")


class Record:
    """Base of all records: equal, hashed and shown by the fields, in their order."""

    __slots__ = ()
    __match_args__: ClassVar[Any] = ()

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = zip(self.__match_args__, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown)})"


def key(number: int, check: Callable[[Any], bool], **options: Any) -> Any:
    """A field: its key in the map and what its value must be. A default makes it optional."""
    return field(metadata={"key": number, "check": check}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(field, key))
def record(kind: type[T]) -> type[T]:
    """The decorator of a record. `dataclasses.fields` and `replace` know it."""
    if not kind.__doc__:
        kind.__doc__ = kind.__name__  # else `dataclass` asks `inspect` for one, a long question
    return dataclass(slots=True, repr=False, eq=False)(kind)
