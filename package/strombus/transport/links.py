"""The state of one connection: numbers, the window of what was sent, and what is owed. No input or output.

Each frame of a link has a number. The sender keeps it until the receiver has acknowledged it, which every frame the
other way does in passing; so it can be sent again after a connection broke, and a full window is what makes
a sender wait for a slow reader.
"""

from __future__ import annotations

from collections import deque

from strombus.errors import WireError
from strombus.transport.frames import Frame

__all__ = ["Link", "Patience"]


class Patience:
    """When to ask again: after a while, and then each time after twice that, until there is an answer.

    Parameters
    ----------
    wait, longest : float
        Seconds.
    """

    def __init__(self, wait: float, longest: float = 2.0) -> None:
        self._first, self._longest = wait, longest
        self.reset()

    def reset(self) -> None:
        """Begin anew, with the first look."""
        self._wait, self._at = self._first, -1.0

    def due(self, now: float) -> bool:
        """Say whether it is time; the waiting starts with the first look."""
        if self._at < 0:
            self._at = now + self._wait
            return False
        if now < self._at:
            return False
        self._wait = min(2 * self._wait, self._longest)
        self._at = now + self._wait
        return True


class Link:
    """One member's side of its connection to a neighbour.

    Parameters
    ----------
    rank : int
        The neighbour's.
    dialled : bool
        Whether this side made the connection.
    frames, volume : int
        Frames and bytes that may wait for the neighbour's acknowledgement.
    """

    def __init__(self, rank: int, dialled: bool, frames: int, volume: int) -> None:
        self.rank, self.dialled = rank, dialled
        self._frames, self._volume = frames, volume
        self.met = False  # both have heard of each other
        self.up = False  # as far as this side knows, the connection stands
        self.gone = False  # the neighbour said that it leaves
        self.lost_since: float | None = None
        self.suspect_until = 0.0
        # outwards
        self.window: deque[bytes] = deque()
        self.first = 0  # number of the window's first frame
        self.cursor = 0  # number of the next frame to hand over
        self.sent = 0
        self._waiting = 0
        self.prodding = Patience(0.25)
        self.refused_since: float | None = None  # a frame of another had no room, and the neighbour took none since
        # inwards
        self.taken = 0  # frames that came, in order
        self.done = 0  # of them, those that were delivered or passed on
        self.told = 0  # of them, those that the neighbour knows of
        self._owed = 0
        self.held: deque[Frame] = deque()  # those that wait for room elsewhere
        self.early: dict[int, Frame] = {}  # those that came before one that is missing
        self.gap = False  # something is missing
        self.gap_since: float | None = None
        self.asking = Patience(0.02)
        self.damaged = 0

    # -- outwards

    def has_room(self, size: int) -> bool:
        """Say whether a frame of that many bytes may be added; any may when none waits."""
        return not self.window or (len(self.window) < self._frames and self._waiting + size <= self._volume)

    def add(self, frame: bytes) -> None:
        """Take the frame with number `sent`; it says to the neighbour what is `done`."""
        self.window.append(frame)
        self._waiting += len(frame)
        self.sent += 1
        self.note_told()

    def next_frame(self) -> bytes | None:
        """Return the frame at the cursor, if there is one."""
        return self.window[self.cursor - self.first] if self.cursor < self.sent else None

    def acknowledge(self, taken: int) -> None:
        """Forget the frames below `taken`."""
        if taken <= self.first:
            return
        if taken > self.sent:
            raise WireError(f"member {self.rank} acknowledges frame {taken - 1}, and {self.sent} were sent")
        for _ in range(taken - self.first):
            self._waiting -= len(self.window.popleft())
        self.first = taken
        self.cursor = max(self.cursor, taken)
        self.refused_since = None
        self.prodding.reset()

    def rewind(self, wanted: int) -> None:
        """Have all frames from `wanted` on sent again; those before the window were acknowledged since it was asked."""
        if wanted > self.sent:
            raise WireError(f"member {self.rank} asks for frame {wanted} again, and {self.sent} were sent")
        self.cursor = max(self.first, min(self.cursor, wanted))

    def drop(self) -> None:
        """Forget what waits for the neighbour, who is taken to have left."""
        self.window.clear()
        self._waiting, self.first, self.cursor = 0, self.sent, self.sent
        self.gone, self.up = True, False

    # -- inwards

    def in_order(self, frame: Frame) -> list[Frame]:
        """Take a frame; return those that are due: none while one before it is missing, or if it came before."""
        if frame.number > self.taken:
            self.gap = True
            if frame.number < self.taken + self._frames:
                self.early[frame.number] = frame
            return []
        due = []
        next_one: Frame | None = frame if frame.number == self.taken else None
        while next_one is not None:
            due.append(next_one)
            self.taken += 1
            next_one = self.early.pop(self.taken, None)
        if due:
            self.refused_since = None  # at work on something else
            self.gap, self.gap_since = bool(self.early), None
            self.damaged = 0
            self.asking.reset()
        return due

    def finish(self, frame: Frame) -> None:
        """Note that a frame was delivered or passed on."""
        self.done += 1
        self._owed += len(frame.payload)

    def note_told(self) -> None:
        """Note that the neighbour is told how much is done."""
        self.told, self._owed = self.done, 0

    @property
    def owes(self) -> bool:
        """Whether the neighbour should be told, since its window may fill up."""
        return self.done - self.told >= max(1, self._frames // 4) or 4 * self._owed >= self._volume
