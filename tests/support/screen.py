"""The master side of a terminal, read by an emulator as a person's would."""

from __future__ import annotations

import os
from collections.abc import Callable

import anyio
import pyte

PATIENCE = 10.0  # seconds until a test that waits for something has failed


class Screen(pyte.Screen):
    """Pyte's takes xterm's private ones for colours, and fails on them."""

    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        if not private:
            super().select_graphic_rendition(*attributes)


class Tty:
    """What a program shows and is typed. The descriptors are non-blocking and stay the caller's;
    they may be the same."""

    def __init__(self, output: int, input: int, *, rows: int = 24, cols: int = 80) -> None:
        self._output = output
        self._input = input
        self._screen = Screen(cols, rows)
        self._screen.write_process_input = self.type  # type: ignore[method-assign]
        self._stream = pyte.ByteStream(self._screen)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen now."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()

    def type(self, keys: str) -> None:
        os.write(self._input, keys.encode())

    def resize(self, *, rows: int, cols: int) -> None:
        """The emulator's size; the terminal's own is set elsewhere."""
        self._screen.resize(rows, cols)

    async def shows(self, wanted: str | Callable[[list[str]], bool]) -> None:
        """Wait until this text, or lines of which this is true, stand on the screen."""
        with anyio.move_on_after(PATIENCE):
            while not (wanted in self.text if isinstance(wanted, str) else wanted(self.lines)):
                if not await self._read():
                    break
            else:
                return
        raise AssertionError(f"the screen never showed {wanted!r}:\n{self.text}")

    async def ends(self) -> str:
        """Wait until nobody has the terminal open any more; what stands on the screen then."""
        with anyio.fail_after(PATIENCE):
            while await self._read():
                pass
        return self.text

    async def _read(self) -> bool:
        """Show what comes next; False at the end, which a terminal tells as EIO."""
        await anyio.wait_readable(self._output)
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._stream.feed(data)
        return bool(data)
