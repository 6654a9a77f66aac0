"""The process that reads uploads: `python -m server.worker.upload_process FD`. One request at a time, in little memory.

What strangers send is parsed and decoded here: a decoder's crash, a bomb or a loop ends this process and not the
gateway, and takes none of the gateway's time. It ends when its socket closes.
"""

from __future__ import annotations

import array
import os
import resource
import socket
import sys
from typing import Final

from server.worker.info_reading import read_info
from server.worker.upload_messages import HEADER, Answer, ReadInfo, ReadUpload, Refused, decode_question, frame
from server.worker.upload_reading import read_upload

__all__ = ["MEMORY_BYTES"]

MEMORY_BYTES: Final = 768 * 2**20
"""What the process may take: the largest picture needs some 350 MB while it is flattened and written."""
_NICENESS: Final = 10
"""The gateway answers before pictures are read."""


def main() -> None:
    """Answer until the socket closes."""
    _limit_itself()
    connection = socket.socket(fileno=int(sys.argv[1]))
    while (received := _receive(connection)) is not None:
        question, descriptor = received
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            try:
                answer = _answer(file.read(), decode_question(question))
            except MemoryError:
                answer = Refused("too_large", "the request needs more memory to be read than there is")
        connection.sendall(frame(answer))


def _answer(body: bytes, question: ReadUpload | ReadInfo) -> Answer:
    return read_info(body, question) if isinstance(question, ReadInfo) else read_upload(body, question)


def _limit_itself() -> None:
    # Not the address space, of which libraries reserve more than they use.
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # people's pictures
    os.nice(_NICENESS)


def _receive(connection: socket.socket) -> tuple[bytes, int] | None:
    """A question and the file descriptor that came with it; None when the socket has been closed."""
    room = socket.CMSG_SPACE(array.array("i").itemsize)
    header, ancillary, _, _ = connection.recvmsg(HEADER.size, room)
    if len(header) < HEADER.size or not ancillary:
        return None
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2][: descriptors.itemsize])
    (length,) = HEADER.unpack(header)
    body = b""
    while len(body) < length:
        chunk = connection.recv(length - len(body))
        if not chunk:
            return None
        body += chunk
    return body, descriptors[0]


if __name__ == "__main__":
    main()
