"""A visitor without a browser: Streamlit's protocol over a websocket, on loopback only."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from http.cookies import SimpleCookie
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import connect

from benchmarks.server import HOST

WHOLE = ForwardMsg.ScriptFinishedStatus.FINISHED_SUCCESSFULLY
FRAGMENT = ForwardMsg.ScriptFinishedStatus.FINISHED_FRAGMENT_RUN_SUCCESSFULLY
Bytes = Callable[[bytes], None]


class Tab:
    """One open tab. ``seen`` gets every message as it comes.

    It keeps the elements of the page by their place, as a browser does, reruns fragments when it
    is told to or a slider in them moves, and forgets what a whole run did not draw again.
    """

    def __init__(self, port: int, seen: Bytes = lambda data: None) -> None:
        self.port, self.session_id, self.query, self.page = port, "", "", ""
        self.pages: dict[str, str] = {}  # name in the address -> hash
        self.elements: dict[tuple[int, ...], Any] = {}
        self._fragments: dict[str, str] = {}  # of sliders, by the widget's id
        self._running, self._awaited = list[str](), ""  # fragments; "" is the whole script
        self._seen, self._drawn = seen, set[tuple[int, ...]]()
        self._widgets: dict[str, WidgetState] = {}
        self._drawn_again = asyncio.Event()  # what is awaited has ended
        self._urls: asyncio.Queue[FileURLs] = asyncio.Queue()
        self._repeats: dict[str, asyncio.Task[None]] = {}

    async def open(self, page: str, query: str = "") -> None:
        """Connect, and wait until ``page`` is drawn."""
        address = f"ws://{HOST}:{self.port}/_stcore/stream"
        self._socket = await connect(address, subprotocols=["streamlit"], max_size=None)
        self._reader = asyncio.create_task(self._read())
        self.query, self.page = query, page
        await self.rerun()

    async def close(self) -> None:
        self._stop(list(self._repeats))
        await self._socket.close()
        self._reader.cancel()

    async def rerun(self, *changed: WidgetState, fragment: str = "") -> float:
        """Seconds until the page, or its ``fragment``, is drawn with these widgets changed."""
        self._awaited = fragment
        self._drawn_again.clear()
        started = time.perf_counter()
        await self._send(list(changed), fragment)
        await asyncio.wait_for(self._drawn_again.wait(), 120)
        return time.perf_counter() - started

    async def switch(self, page: str) -> float:
        """Seconds until another page is drawn."""
        self.page = page
        self._widgets.clear()
        return await self.rerun()

    def find(self, kind: str, label: str) -> Any:
        """The widget of this kind and label, or None."""
        for element in list(self.elements.values()):
            if element.WhichOneof("type") == kind and getattr(element, kind).label == label:
                return getattr(element, kind)
        return None

    async def press(self, label: str) -> bool:
        """Press a button; False where there is none, or it is greyed out."""
        button = self.find("button", label)
        if button is None or button.disabled:
            return False
        await self.rerun(WidgetState(id=button.id, trigger_value=True))
        return True

    async def slide(self, label: str, value: float) -> float | None:
        """Seconds until the page shows the slider's new value."""
        slider = self.find("slider", label)
        if slider is None:
            return None
        state = WidgetState(id=slider.id)
        state.double_array_value.data.append(value)
        return await self.rerun(state, fragment=self._fragments.get(slider.id, ""))

    async def upload(self, label: str, name: str, data: bytes) -> int:
        """Upload a file as the browser does; the status that the server answered."""
        uploader = self.find("file_uploader", label)
        message = BackMsg()
        request = message.file_urls_request
        request.request_id, request.session_id = "upload", self.session_id
        request.file_names.append(name)
        await self._socket.send(message.SerializeToString())
        urls = await asyncio.wait_for(self._urls.get(), 120)
        address = f"http://{HOST}:{self.port}"
        status = await asyncio.to_thread(_put, address, urls.upload_url, name, data)
        if status < 300 and uploader is not None:
            state = WidgetState(id=uploader.id)
            file = state.file_uploader_state_value.uploaded_file_info.add()
            file.name, file.size, file.file_id = name, len(data), urls.file_id
            file.file_urls.CopyFrom(urls)
            await self.rerun(state)
        return status

    async def _send(self, changed: list[WidgetState], fragment: str, repeats: bool = False) -> None:
        for state in changed:
            self._widgets[state.id] = state
        message = BackMsg()
        client = message.rerun_script
        client.query_string, client.page_name = self.query, self.page
        client.page_script_hash = self.pages.get(self.page, "")
        client.fragment_id, client.is_auto_rerun = fragment, repeats
        client.widget_states.widgets.extend(self._widgets.values())
        for state in changed:  # a press is over once it is told
            if state.WhichOneof("value") == "trigger_value":
                del self._widgets[state.id]
        await self._socket.send(message.SerializeToString())

    async def _repeat(self, fragment: str, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            await self._send([], fragment, repeats=True)

    async def _read(self) -> None:
        async for data in self._socket:
            self._seen(data)
            message = ForwardMsg.FromString(data)
            kind = message.WhichOneof("type")
            if kind == "delta" and message.delta.WhichOneof("type") == "new_element":
                place = tuple(message.metadata.delta_path)
                element = self.elements[place] = message.delta.new_element
                self._drawn.add(place)
                if element.WhichOneof("type") == "slider":
                    self._fragments[element.slider.id] = message.delta.fragment_id
            else:
                self._take(kind, message)

    def _take(self, kind: str, message: ForwardMsg) -> None:
        if kind == "new_session":
            self.session_id = message.new_session.initialize.session_id or self.session_id
            self._drawn, before = set(), self._running
            self._running = list(message.metadata.run.fragment_ids)
            if not self._running:  # a whole run says again what repeats
                self._stop(list(self._repeats))
            elif self._awaited in before:  # a fragment ends no other, so it was complete, though
                self._drawn_again.set()  # Streamlit may say that it was cut short, or nothing
        elif kind == "navigation":
            self.pages = {p.url_pathname: p.page_script_hash for p in message.navigation.app_pages}
        elif kind == "page_info_changed":
            self.query = message.page_info_changed.query_string
        elif kind == "file_urls_response":
            for urls in message.file_urls_response.file_urls:
                self._urls.put_nowait(urls)
        elif kind == "auto_rerun":
            fragment = message.auto_rerun.fragment_id
            if fragment not in self._repeats:
                task = asyncio.create_task(self._repeat(fragment, message.auto_rerun.interval))
                self._repeats[fragment] = task
        elif kind == "script_finished" and message.script_finished == WHOLE:
            for place in self.elements.keys() - self._drawn:
                del self.elements[place]
            self._drawn_again.set()
        elif kind == "script_finished" and message.script_finished == FRAGMENT:
            if self._awaited in self._running:
                self._drawn_again.set()
            self._running = []
        elif kind == "stop_auto_rerun":
            self._stop(message.stop_auto_rerun.fragment_ids)

    def _stop(self, fragments: Iterable[str]) -> None:
        for fragment in fragments:
            repeat = self._repeats.pop(fragment, None)
            if repeat is not None:
                repeat.cancel()


def _put(address: str, path: str, name: str, data: bytes) -> int:
    with urllib.request.urlopen(f"{address}/_stcore/health", timeout=120) as answer:
        token = SimpleCookie(answer.headers["Set-Cookie"])["_streamlit_xsrf"].value
    mark = b"----visitor"
    part = f'Content-Disposition: form-data; name="file"; filename="{name}"'.encode()
    body = b"\r\n".join([b"--" + mark, part, b"", data, b"--" + mark + b"--", b""])
    head = {
        "Content-Type": f"multipart/form-data; boundary={mark.decode()}",
        "Cookie": f"_streamlit_xsrf={token}",
        "X-Xsrftoken": token,
    }
    request = urllib.request.Request(address + path, body, head, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:  # the server stops reading a body that is too large
        return 413
