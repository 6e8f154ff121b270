"""A stand-in for the Hugging Face hub's HTTP interface on loopback: dataset repositories, LFS and commits.

Written from https://huggingface.co/docs/hub/api, git-lfs's docs/api/batch.md and what huggingface_hub sends.
It checks what it gets as the hub does: a token, hashes and sizes, and that a committed file was uploaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_standInTokenThatNobodyElseHas"
_LARGE = re.compile(r".*\.(tar|parquet|jpg|png)")
_PAGE = 3
_LARGEST_SMALL = 10 << 20


@dataclass(frozen=True)
class Fault:
    """What happens instead of an answer to a request that matches."""

    request: str
    """A regular expression for `POST /api/…`."""
    status: int | None = 503
    """None: the connection is cut."""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False
    """Whether what was asked for is done all the same."""


@dataclass
class Repo:
    """A dataset repository: its branches and what they hold."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    large: dict[str, str] = field(default_factory=dict)
    """The paths of large files -> their SHA-256."""
    commits: list[list[str]] = field(default_factory=list)
    """The paths that each commit added."""

    @property
    def files(self) -> dict[str, bytes]:
        return self.branches["main"]


class HubServer:
    """The hub's state, and what was asked of it."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.uploads: Counter[str] = Counter()
        """SHA-256 -> how often its contents were sent whole."""
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        """Each happens once, to the first request that matches."""
        self.before: Callable[[str], None] = lambda request: None
        """Told of each request before it is served; a ConnectionError of it cuts the connection."""
        self.part_size = 1 << 40
        """Bytes above which files are sent in parts."""
        self.writers = {TOKEN}
        self.ignored: str | None = None
        """A path that a .gitignore names."""
        self.endpoint = ""
        self._lock = threading.Lock()
        self._parts: dict[str, dict[int, bytes]] = {}

    def fault_of(self, request: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if re.search(fault.request, request):
                    self.faults.remove(fault)
                    return fault
        return None

    def keep(self, oid: str, data: bytes) -> None:
        assert hashlib.sha256(data).hexdigest() == oid
        with self._lock:
            self.blobs[oid] = data
            self.uploads[oid] += 1

    def keep_part(self, oid: str, number: int, data: bytes) -> None:
        with self._lock:
            self._parts.setdefault(oid, {})[number] = data

    def complete(self, oid: str) -> None:
        with self._lock:
            parts = self._parts.pop(oid)
        self.keep(oid, b"".join(parts[number] for number in sorted(parts)))

    def times(self, request: str) -> int:
        """How many requests match."""
        return sum(re.search(request, one) is not None for one in self.requests)

    def download(self, name: str, folder: Path, branch: str = "main") -> Path:
        """All files of a repository, in a folder."""
        for path, data in self.repos[name].branches[branch].items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return folder


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """A hub on a port of loopback; it ends with the block."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that have gone; anything else is a defect of the test."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        self.status, self.message, self.code = status, message, code


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer in two packets waits for an acknowledgement
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_GET

    def _serve(self) -> None:
        body = self._body()
        request = f"{self.command} {unquote(self.path)}"
        self.hub.requests.append(request)
        self.hub.before(request)
        fault = self.hub.fault_of(request)
        try:
            if fault is not None and not fault.after:
                return self._fail(fault)
            status, answer, headers = self._answered(body)
            if fault is not None:
                return self._fail(fault)
        except _Refused as error:
            headers = {"X-Error-Message": error.message, "X-Error-Code": error.code}
            return self._send(error.status, {"error": error.message}, headers)
        return self._send(status, answer, headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        size = int(self.headers.get("Content-Length", 0))
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionError("the client has gone")
        return data

    def _fail(self, fault: Fault) -> None:
        if fault.status is None:
            self.close_connection = True
            self.connection.close()
            return
        headers = {"X-Error-Message": fault.message, **fault.headers}
        self._send(fault.status, {"error": fault.message}, headers)

    def _send(self, status: int, answer: Any, headers: dict[str, str]) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answered(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        url = urlsplit(self.path)
        path = unquote(url.path)
        if found := re.fullmatch(r"/lfs/(\w+)(?:/(\w+))?", path):
            return self._lfs_object(found[1], found[2], body)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.hub.writers and not token.startswith("hf_reader"):
            raise _Refused(401, "Invalid credentials in Authorization header")
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if path == "/api/repos/create":
            return self._create(json.loads(body), token)
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._repo(found[1], token, writes=True)
            return self._batch(json.loads(body))
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return 200, self._branch(self._repo(found[1], token), found[2])[found[3]], {}
        found = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/([\w-]+)/([^/]+))?", path)
        if found is None:
            raise _Refused(404, f"no such interface: {path}")
        writes = found[2] in {"preupload", "commit", "branch"}
        return self._dataset(found[1], self._repo(found[1], token, writes), found[2], found[3], body)

    def _repo(self, name: str, token: str, writes: bool = False) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not token):
            raise _Refused(404 if token else 401, "Repository not found", "RepoNotFound")
        if writes and token not in self.hub.writers:
            raise _Refused(403, "you must use a write token to upload to this repository")
        return repo

    @staticmethod
    def _branch(repo: Repo, name: str) -> dict[str, bytes]:
        if name not in repo.branches:
            raise _Refused(404, f"Invalid rev id: {name}", "RevisionNotFound")
        return repo.branches[name]

    def _create(self, asked: dict[str, Any], token: str) -> tuple[int, Any, dict[str, str]]:
        name = f"{asked['organization']}/{asked['name']}"
        if token not in self.hub.writers:
            raise _Refused(403, f"You don't have the rights to create a dataset in {asked['organization']}")
        if name in self.hub.repos:
            raise _Refused(409, "You already created this dataset repo")
        private = asked.get("visibility") == "private" or asked.get("private", False)
        self.hub.repos[name] = Repo(private)
        return 200, {"url": f"{self.hub.endpoint}/datasets/{name}"}, {}

    def _dataset(
        self, name: str, repo: Repo, what: str | None, branch: str | None, body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        if what is None or branch is None:
            return 200, {"id": name, "private": repo.private, "sha": "0" * 40, "tags": []}, {}
        if what == "branch":
            repo.branches.setdefault(branch, dict(repo.files))
            return 200, {}, {}
        files = self._branch(repo, branch)
        if what == "tree":
            return self._tree(repo, files, name, branch)
        if what == "paths-info":
            paths = parse_qs(body.decode())["paths"]
            assert len(paths) <= 1000
            return 200, [self._entry(repo, path, files[path]) for path in paths if path in files], {}
        if what == "preupload":
            return 200, {"files": [self._mode(one) for one in json.loads(body)["files"]]}, {}
        if what != "commit":
            raise _Refused(404, f"no such interface: {what}")
        return self._commit(name, repo, files, [json.loads(line) for line in body.splitlines()])

    def _tree(
        self, repo: Repo, files: dict[str, bytes], name: str, branch: str
    ) -> tuple[int, Any, dict[str, str]]:
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        paths = sorted(files)
        page: list[Any] = [self._entry(repo, path, files[path]) for path in paths[start : start + _PAGE]]
        folders = sorted({path.rpartition("/")[0] for path in paths} - {""})
        if not start:
            page += [{"type": "directory", "path": folder, "oid": "0" * 40} for folder in folders]
        link = f"{self.hub.endpoint}/api/datasets/{name}/tree/{branch}?recursive=True&cursor={start + _PAGE}"
        return 200, page, {"Link": f'<{link}>; rel="next"'} if start + _PAGE < len(paths) else {}

    @staticmethod
    def _entry(repo: Repo, path: str, data: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob}
        if path in repo.large:
            entry["oid"] = "1" * 40
            entry["lfs"] = {"oid": repo.large[path], "size": len(data), "pointerSize": 130}
        return entry

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = _LARGE.fullmatch(file["path"]) or file["size"] > _LARGEST_SMALL
        ignored = file["path"] == self.hub.ignored
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": ignored}

    def _batch(self, asked: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        return 200, {"transfer": "basic", "objects": [self._actions(**one) for one in asked["objects"]]}, {}

    def _actions(self, oid: str, size: int) -> dict[str, Any]:
        if oid in self.hub.blobs:
            return {"oid": oid, "size": size}
        href, header = f"{self.hub.endpoint}/lfs/{oid}", {}
        if size > self.hub.part_size:
            parts = range(1, -(-size // self.hub.part_size) + 1)
            header = {"chunk_size": str(self.hub.part_size)} | {str(n): f"{href}/{n}" for n in parts}
            upload = {"href": f"{href}/complete", "header": header}
        else:
            upload = {"href": href, "header": header}
        verify = {"href": f"{href}/verify", "header": {}}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def _lfs_object(self, oid: str, what: str | None, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if what is None:
            self.hub.keep(oid, body)
        elif what == "verify":
            if len(self.hub.blobs.get(oid, b"")) != json.loads(body)["size"]:
                raise _Refused(404, "object not found")
        elif what == "complete":
            self.hub.complete(oid)
        else:
            self.hub.keep_part(oid, int(what), body)
            return 200, {}, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
        return 200, {}, {}

    def _commit(
        self, name: str, repo: Repo, files: dict[str, bytes], lines: list[dict[str, Any]]
    ) -> tuple[int, Any, dict[str, str]]:
        assert lines[0]["key"] == "header" and lines[0]["value"]["summary"]
        added = []
        for line in lines[1:]:
            value = line["value"]
            path = value["path"]
            if line["key"] == "deletedFile":
                if path not in files:
                    raise _Refused(404, "A file with this name doesn't exist", "EntryNotFound")
                del files[path]
                repo.large.pop(path, None)
                continue
            if line["key"] == "file":
                files[path] = base64.b64decode(value["content"])
                repo.large.pop(path, None)
            else:
                assert line["key"] == "lfsFile"
                if value["oid"] not in self.hub.blobs:
                    raise _Refused(400, f"LFS pointer pointed to a file that does not exist: {path}")
                files[path] = self.hub.blobs[value["oid"]]
                repo.large[path] = value["oid"]
            added.append(path)
        repo.commits.append(added)
        return (
            200,
            {"commitUrl": f"{self.hub.endpoint}/datasets/{name}/commit/{'2' * 40}", "commitOid": "2" * 40},
            {},
        )
