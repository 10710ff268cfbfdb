"""A pickle machine that makes data, and has no means to do anything else.

A pickle is a program. The standard library's machine runs it: it imports what the pickle names, calls it, sets
attributes on what comes back. This one keeps the operations that move data, and changes the others:

- A global is a :class:`.plain.Name`, which is nothing but its text. Names that are not in our tables are refused.
- A call looks its name up in a table of functions of ours (:mod:`.rebuilding`), which check what they get.
- No attribute is set and no method of an object is called. A state goes to the function that expects one for this very
  object, once.
- Only exact lists, dicts and sets are filled, so that nothing of a subclass is ever there to be called.
- What copies (a string to bytes, bytes to an array), or makes much of a few bytes, has to do with a few times the size
  of the file, see :meth:`Unpickler.spend`.

What is on the stack is therefore always a plain value, a tensor, an array of numbers, or a thing of ours on its way to
be one; and a result that holds one of the latter is refused.
"""

import pickle
from collections.abc import Callable
from typing import Any, BinaryIO

from .plain import Name, NotDataError, check_key, check_plain, short, shown

# Operations of the pickle machine that move data only; all read a bounded number of bytes from the file.
_OF_DATA = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK,
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
    pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.LONG4, pickle.BINFLOAT,
    pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8,
    pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8,
    pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE,
    pickle.EMPTY_LIST, pickle.EMPTY_DICT,
    pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET,
    pickle.GLOBAL, pickle.STACK_GLOBAL,
)  # fmt: skip
_SMALL = 1 << 16
# Bytes of objects that any file may make: small ones take 500 in memory, and 50 in a file.
_FREE = 1 << 26


class _Operations(dict):
    def __missing__(self, code: int) -> None:
        raise NotDataError(f'it is damaged, or uses the pickle operation {code}.')


class Stream:
    """What is left of a file, read so that a length in the file never makes more memory than the file has bytes."""

    def __init__(self, file: BinaryIO):
        self.file = file
        start = file.tell()
        self.end = file.seek(0, 2)
        file.seek(start)

    def left(self) -> int:
        return self.end - self.file.tell()

    def read(self, size: int) -> bytes:
        # Nearly all sizes are of a few bytes, and to ask for the position takes longer than to read them.
        content = self.file.read(size) if size < _SMALL or size <= self.left() else b''
        if len(content) < size:
            raise EOFError('it ends in the middle of its data')
        return content

    def readline(self) -> bytes:
        """The name of a module or global, with its newline."""
        line = self.file.readline(1000)
        if not line.endswith(b'\n'):
            raise EOFError('it ends in the middle of a name')
        return line


class Unpickler(pickle._Unpickler):
    """Unpickle data; :meth:`load` returns it.

    Args:
        stream: is left behind the pickle.
        calls: functions by the name that a pickle calls; each gets this machine and the arguments.
        values: values by the name that stands for them.
        names: says whether another name may be an argument.
        load_persistent: turns what torch writes for a storage into one.
        limit: bytes that a tensor may have.

    Raises:
        NotDataError: the pickle holds more than data.
        Exception: nearly any, if the file is damaged.
    """

    dispatch = _Operations({code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OF_DATA})

    def __init__(
        self,
        stream: Stream,
        calls: dict[str, Callable],
        values: dict[str, Any],
        names: Callable[[str], bool],
        load_persistent: Callable[[Any], Any],
        limit: int,
    ):
        super().__init__(stream, encoding='utf-8')
        self.calls = calls
        self.values = values
        self.names = names
        self.persistent_load = load_persistent
        self.limit = limit
        self._copies = 4 * stream.left()
        self._objects = 8 * stream.left() + _FREE
        self._stateful: dict[int, tuple[Any, Callable]] = {}

    def load(self) -> Any:
        value = super().load()
        check_plain(value)
        return value

    def spend(self, copied: int = 0, objects: int = 0) -> None:
        """Say how many bytes of the file are about to be copied, and about how many to be made of objects.

        A pickle can repeat its long strings and its calls by a few bytes each, so that they would fill any memory.
        """
        self._copies -= copied
        self._objects -= objects
        if self._copies < 0 or self._objects < 0:
            raise ValueError('it makes far more data than it holds')

    def expect_state(self, value: Any, take: Callable[[Any], None]) -> Any:
        """Let the pickle give ``value`` a state, once, which goes to ``take``; returns ``value``."""
        self._stateful[id(value)] = value, take
        return value

    def find_class(self, module: str, name: str) -> Any:
        text = f'{"builtins" if module == "__builtin__" else module}.{name}'
        if text in self.values:
            return self.values[text]
        if text in self.calls or self.names(text):
            return Name(text)
        raise NotDataError(f'it names {short(text)}.')

    def call(self, function: Any, arguments: Any) -> Any:
        if type(function) is not Name or function.text not in self.calls:
            raise NotDataError(f'it calls {shown(function)}.')
        if type(arguments) is not tuple:
            raise TypeError('the arguments of a call are no tuple')
        return self.calls[function.text](self, *arguments)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        value = self.stack[-1]
        _, take = self._stateful.pop(id(value), (None, None))
        if take is None:
            raise NotDataError(f'it sets the state of {shown(value)}.')
        take(state)

    def load_append(self) -> None:
        value = self.stack.pop()
        self._top(list).append(value)

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._top(list).extend(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[check_key(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[check_key(key)] = value

    def load_empty_set(self) -> None:
        self.spend(objects=216)
        self.append(set())

    def load_additems(self) -> None:
        items = self.pop_mark()
        self._top(set).update(map(check_key, items))

    def load_bytearray8(self) -> None:
        size = int.from_bytes(self.read(8), 'little')
        self.append(bytearray(self.read(size)))

    def _top(self, kind: type) -> Any:
        value = self.stack[-1]
        if type(value) is not kind:
            raise NotDataError(f'it fills {shown(value)} as if it were a {kind.__name__}.')
        return value

    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.EMPTY_SET[0]: load_empty_set,
        pickle.ADDITEMS[0]: load_additems,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.BINPERSID[0]: pickle._Unpickler.load_binpersid,
    }
