"""Servers of live sound on the loopback interface: HTTP, and the part of RTSP that FFmpeg needs."""

import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from audio import Samples

PACKET_SAMPLES = 320


class AudioServer:
    """Serves one of `contents` to each connection, or an error for None; announces `missing` bytes too many."""

    def __init__(self, contents: list[bytes | None], missing: int = 0) -> None:
        left = list(contents)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = left.pop(0) if left else None
                if content is None:
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content) + missing))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}/sound"

    def __enter__(self) -> "AudioServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RtspServer:
    """Plays sound to one client: 16-bit mono over RTP within the RTSP connection, without the samples of `lost`."""

    def __init__(self, sound: Samples, rate_hz: int, lost: slice) -> None:
        self._sound, self._rate_hz, self._lost = sound, rate_hz, lost
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/sound"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "RtspServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        self._listener.close()  # a client cannot reconnect
        with connection, connection.makefile("rwb") as file:
            while request := self._request(file):
                method, sequence = request
                head = f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n"
                if method == "DESCRIBE":
                    about = (
                        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=sound\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
                        f"m=audio 0 RTP/AVP 97\r\na=rtpmap:97 L16/{self._rate_hz}/1\r\na=control:track\r\n"
                    )
                    file.write(
                        f"{head}Content-Type: application/sdp\r\nContent-Length: {len(about)}\r\n\r\n{about}".encode()
                    )
                elif method == "SETUP":
                    file.write(f"{head}Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n".encode())
                else:
                    file.write(f"{head}Session: 1\r\nPublic: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n".encode())
                file.flush()
                if method == "PLAY":
                    self._play(connection)
                    return

    @staticmethod
    def _request(file: "socket.SocketIO") -> tuple[str, str] | None:
        method, sequence = "", ""
        while (line := file.readline().decode().strip()) or not method:
            if not line:
                return None
            method = method or line.split()[0]
            if line.lower().startswith("cseq:"):
                sequence = line.partition(":")[2].strip()
        return method, sequence

    def _play(self, connection: socket.socket) -> None:
        lost = range(*self._lost.indices(len(self._sound)))
        for number, start in enumerate(range(0, len(self._sound), PACKET_SAMPLES)):
            if start in lost:
                continue
            samples = np.round(self._sound[start : start + PACKET_SAMPLES] * 2**15).astype(">i2").tobytes()
            packet = struct.pack(">BBHII", 0x80, 97, number, 90_000 + start, 1) + samples
            connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
