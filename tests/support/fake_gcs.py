"""Google Cloud Storage in a process: the part of its JSON API that gcsfs and TensorStore use.

As there, an object appears whole when its upload ends, and not before; there are no directories,
and nothing is renamed.

    python tests/fake_gcs.py PORTFILE      # serves until it is ended; writes its port there
"""

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

OBJECTS: dict[str, tuple[int, bytes]] = {}  # bucket/name -> generation, content
UPLOADS: dict[str, tuple[str, bytearray]] = {}  # id -> bucket/name, content so far
LOCK = threading.Lock()
OBJECT = re.compile(
    r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)(?:/rewriteTo/b/([^/]+)/o/(.+))?"
)
LIST = re.compile(r"/storage/v1/b/([^/]+)/o/?")
UPLOAD = re.compile(r"(?:/resumable)?/upload/storage/v1/b/([^/]+)/o")


def describe(key: str) -> dict[str, str]:
    bucket, _, name = key.partition("/")
    generation, content = OBJECTS[key]
    time = "2026-01-01T00:00:00Z"
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "size": str(len(content)),
        "generation": str(generation),
        "metageneration": "1",
        "updated": time,
        "timeCreated": time,
    }


def commit(key: str, content: bytes) -> dict[str, str]:
    with LOCK:
        OBJECTS[key] = OBJECTS.get(key, (0, b""))[0] + 1, content
        return describe(key)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        pass

    def reply(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, content: object, status: int = 200, **headers: str) -> None:
        self.reply(status, json.dumps(content).encode(), Content_Type="application/json", **headers)

    def missing(self) -> None:
        self.json({"error": {"code": 404, "message": "Not Found"}}, 404)

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    @property
    def key(self) -> str:
        match = OBJECT.fullmatch(urlsplit(self.path).path)
        return f"{match[1]}/{unquote(match[2])}" if match else ""

    def refused(self, key: str) -> bool:
        """Whether a precondition on the object's generation fails."""
        now, wanted = str(OBJECTS.get(key, (0, b""))[0]), self.query
        return (
            wanted.get("ifGenerationMatch", now) != now or wanted.get("ifGenerationNotMatch") == now
        )

    def do_GET(self) -> None:
        key, where = self.key, urlsplit(self.path).path
        if key:
            if key not in OBJECTS:
                return self.missing()
            if self.query.get("alt") != "media":
                return self.json(describe(key))
            return self.media(key)
        if match := LIST.fullmatch(where):
            return self.listing(match[1])
        self.json({"kind": "storage#bucket", "name": where.rpartition("/")[2]})

    def media(self, key: str) -> None:
        generation, content = OBJECTS[key]
        version = {"x_goog_generation": str(generation)}
        if self.refused(key):
            same = "ifGenerationNotMatch" in self.query
            return self.reply(304 if same else 412)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted:
            return self.reply(200, content, **version)
        start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if start >= len(content):
            return self.reply(416)
        part = content[start : end + 1]
        total = {"Content_Range": f"bytes {start}-{end}/{len(content)}"}
        self.reply(206, part, **version, **total)

    def listing(self, bucket: str) -> None:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        low, high = self.query.get("startOffset", ""), self.query.get("endOffset", "")
        items, prefixes = [], set()
        with LOCK:
            for key in sorted(OBJECTS):
                name = key.removeprefix(f"{bucket}/")
                if name == key or not name.startswith(prefix) or name < low:
                    continue
                if high and name >= high:
                    continue
                rest = name[len(prefix) :]
                if delimiter and delimiter in rest:
                    prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
                else:
                    items.append(describe(key))
        self.json({"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self) -> None:
        if "upload_id" in self.query:
            return self.do_PUT()
        where, content = urlsplit(self.path).path, self.body()
        if match := UPLOAD.fullmatch(where):
            return self.upload(match[1], content)
        match = OBJECT.fullmatch(where)
        if match and match[3]:
            if self.key not in OBJECTS:
                return self.missing()
            done = commit(f"{match[3]}/{unquote(match[4])}", OBJECTS[self.key][1])
            return self.json({"done": True, "resource": done})
        self.json({"error": {"code": 501, "message": where}}, 501)

    def upload(self, bucket: str, content: bytes) -> None:
        kind, name = self.query.get("uploadType"), self.query.get("name", "")
        if kind == "multipart":
            mark = re.search(r"boundary=[\"']?([^\"';]+)", self.headers["Content-Type"])
            assert mark is not None
            _, head, data, _ = content.split(b"--" + mark[1].encode())
            name = json.loads(re.split(rb"\r?\n\r?\n", head, maxsplit=1)[1])["name"]
            content = re.split(rb"\r?\n\r?\n", data, maxsplit=1)[1]
            content = content[: -2 if content.endswith(b"\r\n") else -1]
        if kind == "resumable":
            name = name or json.loads(content or b"{}")["name"]
            number = str(len(UPLOADS))
            UPLOADS[number] = f"{bucket}/{name}", bytearray()
            host = self.headers["Host"]
            place = f"http://{host}/upload/storage/v1/b/{bucket}/o?upload_id={number}"
            return self.reply(200, Location=place)
        if self.refused(f"{bucket}/{name}"):
            return self.json({"error": {"code": 412, "message": "precondition"}}, 412)
        self.json(commit(f"{bucket}/{name}", content))

    def do_PUT(self) -> None:
        key, so_far = UPLOADS[self.query["upload_id"]]
        so_far += self.body()
        if (self.headers.get("Content-Range") or "/0").endswith("/*"):
            return self.reply(308, Range=f"bytes=0-{len(so_far) - 1}")
        self.json(commit(key, bytes(so_far)))

    def do_DELETE(self) -> None:
        with LOCK:
            gone = OBJECTS.pop(self.key, None)
        if gone is None:
            return self.missing()
        self.reply(204)


class Server(ThreadingHTTPServer):
    def handle_error(self, *args: object) -> None:
        """A client that went away is no news; it may have been killed on purpose."""


def main(port_file: str) -> None:
    server = Server(("127.0.0.1", 0), Handler)
    Path(port_file).write_text(str(server.server_port))
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
